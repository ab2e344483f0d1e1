// Keep the page's files on the phone where the browser allows it (a secure context), and say how to install it.
"use strict";
(() => {
  const { t, el, parts } = waywarden;
  if ("serviceWorker" in navigator && window.isSecureContext) navigator.serviceWorker.register("/sw.js").catch(() => {});
  const isInstalled = () => window.matchMedia("(display-mode: standalone)").matches;
  parts.menu = () => isInstalled() || !window.isSecureContext ? null : el("p", { class: "soft" }, t("install_hint"));
})();
