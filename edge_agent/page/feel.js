// Felt and kept awake: a short buzz for right and wrong, and a screen that stays on while the page is looked at.
"use strict";
(() => {
  const BUZZ = { right: [35], wrong: [120, 70, 120], done: [60], changed: [40, 60, 40] };
  waywarden.parts.feel = kind => { if (navigator.vibrate) navigator.vibrate(BUZZ[kind] || [30]); };

  async function stayAwake() {
    if (document.hidden || !("wakeLock" in navigator)) return;
    try { await navigator.wakeLock.request("screen"); } catch (refused) { /* The phone saves its battery: its right. */ }
  }
  document.addEventListener("visibilitychange", stayAwake);
  stayAwake();
})();
