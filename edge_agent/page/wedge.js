// A wedge scanner types like a keyboard, only faster than any hand, and ends with Enter: it is heard anywhere on the page.
"use strict";
(() => {
  const FASTEST_HAND_MS = 70, SHORTEST = 4;
  let text = "", last = 0, field = null, before = "";

  document.addEventListener("keydown", event => {
    const now = performance.now();
    if (now - last > FASTEST_HAND_MS) { text = ""; field = null; }
    last = now;
    if (event.key === "Enter") {
      if (text.length < SHORTEST) { text = ""; return; }
      event.preventDefault();
      event.stopPropagation();
      // What the scanner typed into a field is no answer to what the field asks for.
      if (field) { field.value = before; field.dispatchEvent(new Event("input")); }
      const found = text;
      text = "";
      if (waywarden.day) waywarden.scanned(found);
      return;
    }
    // GS1 separators come as Ctrl+] from most scanners.
    const typed = event.ctrlKey && event.key === "]" ? "\x1d" : event.key.length === 1 && !event.ctrlKey && !event.metaKey ? event.key : "";
    if (!typed) return;
    const into = event.target;
    const takesText = into instanceof HTMLInputElement || into instanceof HTMLTextAreaElement;
    if (text === "") { field = takesText ? into : null; before = takesText ? into.value : ""; }
    // A key held by a focused button would press it.
    else if (!takesText) event.preventDefault();
    text += typed;
  }, true);
})();
