// Make a photograph small enough to be kept: 1,280 points on its longer side, a JPEG below the agent's limit.
"use strict";
(() => {
  const LONGEST = 1280, MOST_BYTES = 380000;

  async function loaded(file) {
    const image = new Image();
    image.src = URL.createObjectURL(file);
    try { await image.decode(); } finally { URL.revokeObjectURL(image.src); }
    return image;
  }
  const asJpeg = (canvas, quality) => new Promise(done => canvas.toBlob(done, "image/jpeg", quality));

  waywarden.parts.picture = loaded;
  waywarden.parts.small = async file => {
    const image = await loaded(file);
    for (let longest = LONGEST; longest >= 480; longest = Math.round(longest * .75)) {
      const scale = Math.min(1, longest / Math.max(image.naturalWidth, image.naturalHeight));
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
      canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      for (const quality of [.78, .6, .45]) {
        const blob = await asJpeg(canvas, quality);
        if (blob && blob.size <= MOST_BYTES) return blob;
      }
    }
    return null;
  };
})();
