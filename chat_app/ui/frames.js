// Slows loops of animation frames down that have gone on for long. Gradio's wheel for a page that is being loaded asks
// for a frame in each frame, and does so for ever after it is gone: an open page would take a tenth of a processor with
// nothing to draw. Nothing that a person sees move goes on for so long.
(() => {
  const LONGEST = 3000, PAUSE = 1000;  // Milliseconds.
  const request = window.requestAnimationFrame.bind(window);
  const cancel = window.cancelAnimationFrame.bind(window);
  let began = 0;  // When the loop began whose frame is being drawn now; 0 outside of frames.
  window.requestAnimationFrame = (draw) => {
    const start = began || performance.now();
    const frame = (time) => {
      began = start;
      try { draw(time); } finally { began = 0; }
    };
    if (performance.now() - start < LONGEST) return request(frame);
    return -setTimeout(() => frame(performance.now()), PAUSE);
  };
  window.cancelAnimationFrame = (handle) => { if (handle < 0) clearTimeout(-handle); else cancel(handle); };
})();
