// Keeps the page's files on the phone, so that it opens when the agent is away for a moment. Never the day: what is
// personal stays on the van.
"use strict";
const KEPT = "waywarden-{{version}}";
const FILES = ["core.js", "wedge.js", "feel.js", "signature.js", "picture.js", "camera.js", "offline.js",
  "page.css", "icon.svg", "icon-192.png"].map(name => `/${name}?v={{version}}`).concat("/shell");

self.addEventListener("install", event => {
  event.waitUntil(caches.open(KEPT).then(kept => kept.addAll(FILES)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", event => {
  event.waitUntil(caches.keys()
    .then(names => Promise.all(names.filter(name => name !== KEPT).map(name => caches.delete(name))))
    // The page is asked for while this worker still wakes.
    .then(() => self.registration.navigationPreload && self.registration.navigationPreload.enable())
    .then(() => self.clients.claim()));
});
self.addEventListener("fetch", event => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin || url.pathname.startsWith("/api/")) return;
  if (event.request.mode === "navigate") event.respondWith(pageOrShell(event));
  else event.respondWith(caches.match(event.request).then(kept => kept || fetch(event.request)));
});

async function pageOrShell(event) {
  const late = new Promise((_, giveUp) => setTimeout(giveUp, 4000));
  try {
    return await Promise.race([event.preloadResponse, late]) || await Promise.race([fetch(event.request), late]);
  } catch (away) {
    return (await caches.match("/shell")) || Response.error();
  }
}
