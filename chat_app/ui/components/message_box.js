// The box below the turns, in which a message is typed. What was sent is drawn and taken out of the box at once, in the
// browser, and stays there as `waiting` until the server says that it has arrived; until then it is sent again. Both it
// and what is being typed are kept in the tab, for Gradio loads the page anew after it has lost its connection.
// Continues conversation_view.js, in the same function.
const SECONDS_TO_HEAR = 4;
const KEPT = "chat_app.message";
const frameOfBox = element.querySelector(".message-box");
const box = document.createElement("textarea");
const sendButton = document.createElement("button");
const stopButton = document.createElement("button");
const told = document.createElement("p");
const NONE = { role: "user", text: "", note: "", id: "" };
let waiting = NONE;
let lastBack = "";

function makeBox() {
  box.placeholder = "Say something…";
  box.rows = 1;
  box.dir = "auto";
  box.setAttribute("aria-label", "Your message");
  sendButton.type = stopButton.type = "button";
  sendButton.className = "submit-button";
  stopButton.className = "stop-button";
  sendButton.textContent = "Send";
  stopButton.textContent = "Stop";
  stopButton.dataset.testid = "stop-button";
  stopButton.hidden = true;
  told.className = "told";
  told.setAttribute("role", "status");
  const row = document.createElement("div");
  row.className = "message-row";
  row.append(box, sendButton, stopButton);
  frameOfBox.append(row, told);
  sendButton.addEventListener("click", submit);
  stopButton.addEventListener("click", halt);
  box.addEventListener("input", () => { tell(""); keep(); });
  box.addEventListener("keydown", (event) => {
    if (!isEnter(event) || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    submit();
  });
  window.addEventListener("online", repeat);
  window.addEventListener("offline", () => { if (waiting.text) drawWaiting(); });
  goHome();
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ typed: box.value, text: waiting.text, id: waiting.id }));
  } catch {}  // A browser may forbid it; then a reload loses what was not sent.
}

function restore() {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(KEPT)); } catch {}
  if (!kept) return;
  box.value = kept.typed;
  waiting = { ...NONE, text: kept.text, id: kept.id };
}

function isEnter(event) {  // While letters are composed, Enter only chooses them. Safari says so by its old code alone.
  return event.key === "Enter" && !event.isComposing && event.keyCode !== 229;
}

function tell(text) {
  told.textContent = text;
}

function isBusy() {
  return Boolean(shown?.busy) || Boolean(waiting.text);
}

function submit() {
  const text = box.value;
  if (!text.trim()) return;
  if (send(text)) box.value = "";
  keep();
  box.focus();
}

function send(text) {  // Whether it was sent; else the reason is told, and the text stays where it is.
  if (isBusy()) {
    tell(waiting.text ? "The message before this one is still on its way." : "A reply is being written. Wait for its end, or stop it.");
    return false;
  }
  tell("");
  waiting = { ...NONE, text: text.trim(), id: `${Date.now()}-${Math.random()}` };
  repeat();
  return true;
}

function repeat() {  // The server knows a message by its name, and answers it once.
  clearTimeout(repeat.timer);
  if (!waiting.text) return;
  if (navigator.onLine) trigger("say", { text: waiting.text, id: waiting.id });
  repeat.timer = setTimeout(repeat, 1000 * SECONDS_TO_HEAR);
  drawWaiting();
}

function drawWaiting() {
  waiting = { ...waiting, note: navigator.onLine ? "" : "There is no connection. It will be sent as soon as there is one." };
  draw();
}

function halt() {
  trigger("halt", {});
  goHome();
}

function goHome() {  // Where the focus goes when what had it is gone: the box, unless that would call a phone's keyboard.
  const hasKeyboard = frameOfBox && matchMedia("(hover: hover)").matches;
  (hasKeyboard ? box : list).focus({ preventScroll: true });
}

function heard(value) {  // What the server says of the box: what has arrived, what comes back, and whether it writes.
  if (!frameOfBox) return;
  if (waiting.id && value.heard === waiting.id) {
    clearTimeout(repeat.timer);
    waiting = NONE;
    keep();
  }
  const [number, text, wasRefused] = value.back;
  const back = `${value.session} ${number}`;  // Numbers begin anew with each session.
  if (number && back !== lastBack && (wasRefused || !box.value.trim())) {
    box.value = [text, box.value].filter((part) => part.trim()).join("\n");
    keep();
    box.focus();
  }
  lastBack = back;
  if (value.busy !== !stopButton.hidden) {
    const hadFocus = [sendButton, stopButton].includes(document.activeElement);
    stopButton.hidden = !value.busy;
    sendButton.hidden = value.busy;
    if (hadFocus) goHome();
    if (!value.busy) tell("");
  }
}

if (frameOfBox) {
  makeBox();
  restore();
}
watch("value", draw);
draw();
if (frameOfBox) repeat();
