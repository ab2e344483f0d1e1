// Scan with the phone's camera: live where the browser allows it (a secure context), else by a photograph. The agent
// reads the barcode; the phone only sends it grey points.
"use strict";
(() => {
  const { t, el, parts, postBytes, fileButton, feel } = waywarden;
  const LIVE_POINTS = 960 * 640, PHOTO_POINTS = 1900000, PAUSE_MS = 120, FOUND_PAUSE_MS = 700;

  function grey(source, width, height, most) {
    const scale = Math.min(1, Math.sqrt(most / (width * height)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.floor(width * scale);
    canvas.height = Math.floor(height * scale);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(source, 0, 0, canvas.width, canvas.height);
    const colours = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const luminance = new Uint8Array(canvas.width * canvas.height);
    // BT.601, in whole numbers.
    for (let k = 0, at = 0; k < luminance.length; k++, at += 4)
      luminance[k] = (77 * colours[at] + 150 * colours[at + 1] + 29 * colours[at + 2]) >> 8;
    return { path: `/api/scan-image?width=${canvas.width}&height=${canvas.height}`, luminance };
  }
  const ask = ({ path, luminance }) => postBytes(path, luminance);

  // {view, file, stop}; `onFound` is given the agent's answer, `tell` words for the driver.
  parts.camera = (onFound, tell) => {
    let stream = null, isOver = false, lastText = "", lastAt = 0;
    const video = el("video", { playsinline: true, muted: true, autoplay: true, "aria-label": t("camera_view") });
    video.muted = true;
    const view = el("div", { class: "view", hidden: true }, video);
    const file = fileButton(t("scan_picture"), fromFile);
    const found = answer => {
      // The same label stays in the picture for a while; it is told once.
      if (answer.parcel === lastText && Date.now() - lastAt < 2500) return;
      lastText = answer.parcel;
      lastAt = Date.now();
      onFound(answer);
    };

    async function fromFile(chosen) {
      try {
        const image = await parts.picture(chosen);
        const got = await ask(grey(image, image.naturalWidth, image.naturalHeight, PHOTO_POINTS));
        if (got === null) tell(t("scan_away"));
        else if (got.status < 300) { tell(""); found(got.body); }
        else { feel("wrong"); tell(got.status === 404 ? t("scan_none") : waywarden.problemWords(got.body)); }
      } catch (unreadable) { tell(t("scan_failed")); }
    }
    async function live() {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: false,
          video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 960 } } });
      } catch (refused) { return tell(t("camera_none")); }
      if (isOver) return halt();
      video.srcObject = stream;
      view.hidden = false;
      await video.play().catch(() => {});
      while (!isOver) {
        if (video.videoWidth) {
          const got = await ask(grey(video, video.videoWidth, video.videoHeight, LIVE_POINTS));
          if (isOver) break;
          if (got === null) { tell(t("scan_away")); await new Promise(go => setTimeout(go, 1500)); }
          else if (got.status < 300) {
            tell("");
            found(got.body);
            // The next label is not there yet.
            await new Promise(go => setTimeout(go, FOUND_PAUSE_MS));
          }
        }
        await new Promise(go => setTimeout(go, PAUSE_MS));
      }
    }
    function halt() {
      isOver = true;
      if (stream) for (const track of stream.getTracks()) track.stop();
    }
    if (navigator.mediaDevices && navigator.mediaDevices.getUserMedia) live().catch(() => tell(t("camera_none")));
    else tell(t("camera_none"));
    return { view, file, stop: halt };
  };
})();
