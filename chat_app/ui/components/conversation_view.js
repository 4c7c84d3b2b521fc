// Draws the turns of a conversation. `element`, `props`, `trigger` and `watch` are given by the component.
// Whatever anybody wrote is set as textContent or as the value of a text area, never as markup.
const frame = element.querySelector(".turns-frame");
const list = document.createElement("ol");
const empty = document.createElement("div");
list.className = "turns";
list.setAttribute("role", "log");
list.setAttribute("aria-label", props.caption || "Conversation");
list.tabIndex = 0;
empty.className = "turns-empty";
frame.append(list, empty);

let newest = 0, session = "", shown = null;
let live = { name: "", text: "", source: null };
let following = !props.value?.readonly, top = 0, isShown = true;  // Whether the end is kept in sight, else what is.
const drawn = [];  // For each row: what was drawn last, so that only what changed is drawn again.
const ICONS = {
  copy: '<path d="M9 9h10v11H9zM5 15V4h10"/>',
  done: '<path d="M5 12l5 5 9-10"/>',
  edit: '<path d="M4 20l1-4L16 5l3 3L8 19z"/>',
  again: '<path d="M19 12a7 7 0 1 1-2-5M19 4v4h-4"/>',
  undo: '<path d="M5 9h9a5 5 0 0 1 0 10H9M5 9l4-4M5 9l4 4"/>',
};

function icon(button, name) {
  button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[name]}</svg>`;
}

function tool(name, label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `tool tool-${name}`;
  button.title = label;
  button.setAttribute("aria-label", label);
  icon(button, name);
  button.addEventListener("click", () => action(button));
  return button;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // A page that came without encryption has no clipboard: select a text area and copy that.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  icon(button, "done");
  setTimeout(() => icon(button, "copy"), 1200);
}

function edit(item, row, index) {
  const area = document.createElement("textarea");
  area.className = "turn-edit";
  area.dir = "auto";
  area.value = row.text;
  area.setAttribute("aria-label", "Edit the message");
  area.rows = Math.min(10, row.text.split("\n").length + 1);
  const save = document.createElement("button");
  const cancel = document.createElement("button");
  save.type = cancel.type = "button";
  save.className = "edit-save";
  cancel.className = "edit-cancel";
  save.textContent = row.role === "user" ? "Send again" : "Keep";
  cancel.textContent = "Cancel";
  const bar = document.createElement("div");
  bar.className = "edit-bar";
  bar.append(save, cancel);
  const close = () => {
    item.editing = null;
    drawn[index] = null;
    draw();
    list.children[index]?.querySelector(".tool-edit")?.focus();
  };
  save.addEventListener("click", () => {
    const text = area.value;
    close();
    if (text.trim() && text !== row.text) trigger("edited", { index, text });
  });
  cancel.addEventListener("click", close);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); close(); }
    if (isEnter(event) && !event.shiftKey) { event.preventDefault(); save.click(); }
  });
  item.querySelector(".said").replaceWith(area);
  item.querySelector(".tools")?.replaceWith(bar);
  item.editing = row.text;
  area.focus();
}

function build(item, row, index, options) {
  item.replaceChildren();
  item.editing = null;  // Else the text as it was when the edit was begun: an open edit outlives what is drawn around it.
  item.className = `turn ${row.role}${options.live ? " live" : ""}`;
  if (row.group) {
    const head = document.createElement("div");
    head.className = "group";
    head.textContent = row.group;
    item.append(head);
  }
  const who = document.createElement("div");
  who.className = "who";
  who.textContent = { user: "You", system: "System text" }[row.role] || options.name;
  const said = document.createElement("div");
  said.className = "said";
  said.dir = "auto";
  said.textContent = row.text;
  item.append(who, said);
  if (options.live && !row.text) {
    said.classList.add("waiting");
    said.setAttribute("aria-label", "Writing");
    said.append(...[0, 1, 2].map(() => document.createElement("i")));
  } else if (!row.text) {
    said.classList.add("nothing");
    said.textContent = "(nothing was said)";
  }
  if (row.note) {
    const note = document.createElement("div");
    note.className = "note";
    note.textContent = row.note;
    item.append(note);
  }
  if (row.mark) item.append(mark(row.mark));
  if (options.tools) item.append(tools(item, row, index));
}

function mark(value) {  // Whether the reply is copied: the reason is shown by a click, for fingers have no pointer to rest.
  const line = document.createElement("details");
  const badge = document.createElement("summary");
  const why = document.createElement("span");
  line.className = "copied";
  badge.className = `copy-badge ${value.kind.replaceAll(" ", "-")}`;
  badge.textContent = value.label;
  why.className = "why";
  why.textContent = value.why;
  line.append(badge, why);
  return line;
}

function tools(item, row, index) {
  const bar = document.createElement("div");
  bar.className = "tools";
  bar.append(tool("copy", "Copy", (button) => copy(row.text, button)));
  bar.append(tool("edit", row.role === "user" ? "Edit this message" : "Edit this reply", () => edit(item, row, index)));
  const isReply = row.role === "assistant";
  bar.append(tool("again", isReply ? "Another reply" : "Answer this again", () => trigger("again", { index })));
  if (isReply) bar.append(tool("undo", "Undo: take the message and its reply back", () => trigger("takeback", { index })));
  if (row.teach) {
    const teach = document.createElement("button");
    teach.type = "button";
    teach.className = "teach-this";
    teach.textContent = "Teach this";
    teach.addEventListener("click", () => trigger("teach", { index }));
    bar.append(teach);
  }
  return bar;
}

function grow(item, row, options, before) {  // A reply that is being written and only became longer: add the rest.
  const [earlier, drawnWith] = before ? JSON.parse(before) : [{}, {}];
  const text = item.querySelector(".said")?.firstChild;
  const isLonger = Boolean(earlier.text) && row.text.startsWith(earlier.text) && text?.data === earlier.text;
  const isSame = JSON.stringify([{ ...earlier, text: "" }, drawnWith]) === JSON.stringify([{ ...row, text: "" }, options]);
  if (!options.live || !isLonger || !isSame) return false;
  text.appendData(row.text.slice(earlier.text.length));
  return true;
}

function follow(name) {  // A reply that is being written: its text comes by itself, and Gradio only begins and ends it.
  if (name === live.name) return;
  live.source?.close();
  const mine = live = { name, text: "", source: null };
  if (!name) return;
  mine.source = new EventSource(`gradio_api/live/${name}`);
  mine.source.onmessage = (event) => {
    if (live !== mine) return;
    mine.text += JSON.parse(event.data);
    draw();
  };
  mine.source.onerror = () => mine.source.close();  // Also at the end: what comes after it, Gradio brings.
}

function drawEmpty(value) {
  empty.replaceChildren();
  empty.hidden = value.rows.length > 0 || Boolean(waiting.text);
  if (empty.hidden) return;
  const text = document.createElement("p");
  text.textContent = value.greeting;
  const hints = document.createElement("div");
  hints.className = "hints";
  for (const hint of value.hints) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = hint;
    button.addEventListener("click", () => send(hint));
    hints.append(button);
  }
  empty.append(text, hints);
}

function draw() {
  const given = props.value || { rows: [], hints: [] };
  const value = given.session === session && given.version < newest ? shown : given;  // One may arrive late.
  shown = value;
  newest = value.version || 0;
  session = value.session;
  follow(value.live || "");
  heard(value);
  const rows = waiting.text ? [...value.rows, waiting] : value.rows;
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const place = [...list.children].indexOf(focused?.closest(".turn"));
  const grew = rows.length > drawn.length;
  list.setAttribute("aria-busy", String(value.busy));
  list.hidden = rows.length === 0;
  frame.classList.toggle("readonly", Boolean(value.readonly));
  frame.classList.toggle("busy", Boolean(value.busy));
  while (drawn.length > rows.length) {
    drawn.pop();
    list.lastElementChild.remove();
  }
  rows.forEach((given, index) => {
    const last = index === rows.length - 1;
    const row = last && live.text.length > given.text.length ? { ...given, text: live.text } : given;
    const options = { live: last && value.busy, name: value.name, tools: !value.readonly && given !== waiting };
    options.tools &&= !options.live;
    const wanted = JSON.stringify([row, options]);
    if (drawn[index] === wanted) return;
    let item = list.children[index];
    if (item && item.editing === row.text && item.isConnected && item.classList.contains(row.role)) return;
    if (item && grow(item, row, options, drawn[index])) {
      drawn[index] = wanted;
      return;
    }
    if (!item) {
      item = document.createElement("li");
      list.append(item);
    }
    build(item, row, index, options);
    drawn[index] = wanted;
  });
  drawEmpty(value);
  if (!value.readonly && grew) following = true;
  if (!value.readonly && following) list.scrollTop = list.scrollHeight;
  if (focused && focused !== list) keepFocus(focused, place);
}

function keepFocus(focused, place) {  // What had the focus was drawn anew, or is hidden while a reply is being written.
  const same = focused.isConnected ? focused : list.children[place]?.getElementsByClassName(focused.className)[0];
  if (!same || getComputedStyle(same).visibility === "hidden") goHome();
  else if (same !== document.activeElement) same.focus({ preventScroll: true });
}

list.addEventListener("scroll", () => {
  if (!isShown || !list.clientHeight) return;
  top = list.scrollTop;
  following = list.scrollHeight - top - list.clientHeight < 80;
});
new ResizeObserver(() => {  // What is hidden, such as a tab that was left, is scrolled to its beginning by the browser.
  const wasShown = isShown;
  isShown = list.clientHeight > 0;
  if (!isShown) return;
  if (following) list.scrollTop = list.scrollHeight;
  else if (!wasShown) list.scrollTop = top;
}).observe(list);
