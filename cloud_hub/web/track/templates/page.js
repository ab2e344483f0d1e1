"use strict";
// Keeps the top of the page up to date while somebody looks at it. Without it everything works by the Refresh link.
(() => {
  const live = document.getElementById("live");
  const news = document.getElementById("news");
  if (!live || !window.fetch) return;
  const every = Number(live.dataset.pollS) * 1000 || 15000;
  const url = `${location.pathname}/state?lang=${document.documentElement.lang}&have=`;
  const spoken = () => [...live.querySelectorAll("[data-headline]")].map((part) => part.textContent.trim()).join(". ");
  const look = async () => {
    if (document.hidden) return;
    const answer = await fetch(url + live.dataset.version, { cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
    if (answer.status === 404 || answer.status === 410) return location.reload();
    if (!answer.ok) return;
    const state = await answer.json();
    if (state.html === null) return;
    const before = spoken();
    const drawn = new DOMParser().parseFromString(state.html, "text/html");
    live.replaceChildren(...drawn.body.childNodes);
    live.dataset.version = state.version;
    const after = spoken();
    if (after !== before) news.textContent = after;
  };
  setInterval(() => look().catch(() => {}), every);
  document.addEventListener("visibilitychange", () => look().catch(() => {}));
})();
