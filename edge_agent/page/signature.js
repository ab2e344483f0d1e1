// A pad to sign on: a white sheet, a black line that thickens when the finger is slow, a PNG at the end.
"use strict";
(() => {
  const { t, el, button, word, sheet, parts } = waywarden;
  const WIDTH = 900, LEAST_POINTS = 8;

  parts.sign = () => sheet(t("sign_title"), (put, close) => {
    const pad = el("canvas", { class: "pad", role: "img", "aria-label": t("sign_pad"), tabindex: "0" });
    const pen = pad.getContext("2d");
    let points = 0, last = null;
    put.body(el("p", { class: "soft pad-hint" }, t("sign_hint")), pad);
    put.foot(button(t("sign_again"), () => clear()), button(t("done"), () => done(), { class: "go" }));

    function clear() {
      const box = pad.getBoundingClientRect();
      pad.width = WIDTH;
      pad.height = Math.round(WIDTH * Math.max(.2, box.height / Math.max(1, box.width)));
      pen.fillStyle = "#ffffff";
      pen.fillRect(0, 0, pad.width, pad.height);
      pen.strokeStyle = pen.fillStyle = "#10131a";
      pen.lineCap = pen.lineJoin = "round";
      points = 0;
    }
    const at = event => {
      const box = pad.getBoundingClientRect(), scale = pad.width / box.width;
      return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
    };
    pad.addEventListener("pointerdown", event => {
      event.preventDefault();
      try { pad.setPointerCapture(event.pointerId); } catch (gone) { /* The finger has left already. */ }
      last = at(event);
      pen.beginPath();
      pen.arc(last.x, last.y, 2.5, 0, 7);
      pen.fill();
    });
    pad.addEventListener("pointermove", event => {
      if (!last) return;
      for (const each of event.getCoalescedEvents && event.getCoalescedEvents().length ? event.getCoalescedEvents() : [event]) {
        const here = at(each), far = Math.hypot(here.x - last.x, here.y - last.y);
        pen.lineWidth = Math.max(3, 7.5 - far / 9);
        pen.beginPath();
        pen.moveTo(last.x, last.y);
        pen.lineTo(here.x, here.y);
        pen.stroke();
        last = here;
        points += 1;
      }
    });
    for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, () => { last = null; });
    function done() {
      if (points < LEAST_POINTS) return void word(t("sign_empty"), "bad");
      pad.toBlob(blob => close(blob || undefined), "image/png");
    }
    requestAnimationFrame(clear);
  });
})();
