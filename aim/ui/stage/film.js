// Pictures on a canvas, code by code: a code appears as its own colour, and turns into pixels as
// soon as those are there. `root` has the colours of paper, dots and gaps as its style.
const TURN = 10; // codes after which a colour has become pixels

class Film {
  constructor(canvas, root) {
    Object.assign(this, { canvas, root, context: canvas.getContext("2d"), value: null });
    this.mark = this.hover = null; // codes that are framed: picture, line, column
    this.cut = this.over = null; // lines above a cut, and above one that is pointed at
    this.clear();
  }

  clear() {
    this.image = null; // all pictures side by side, decoded
    this.covers = 0; // codes of each that are in it
    this.faded = 1; // how far a new image has come in
    this.colours = []; // of each picture, a grid of one pixel a code
    this.known = 0; // codes of each picture that have come
  }

  get total() {
    return this.value ? this.value.grid ** 2 : 256;
  }

  // Show `value`; `seen` codes were shown before.
  async take(value, seen = 0) {
    this.value = value;
    this.colours = value.colours.map((text, i) =>
      this.colours[i]?.text === text ? this.colours[i] : this.dyed(text, value.grid),
    );
    const counts = this.colours.map((one) => one.count);
    const of = value.state === "stopped" ? Math.max : Math.min;
    this.known = counts.length ? of(...counts) : 0;
    const address = value.image?.url ?? value.image;
    if (!address || address === this.image?.dataset.from) return;
    const next = new Image();
    next.dataset.from = address;
    next.src = address;
    await next.decode().catch(() => null);
    if (!next.naturalWidth || this.value.run !== value.run) return;
    // what is on show as colours turns into pixels slowly, and the rest will come as pixels
    this.faded = seen > 0 && (!this.image || this.covers < value.covers) ? 0 : 1;
    [this.image, this.covers] = [next, value.covers];
  }

  // One pixel a code, transparent where there is none.
  dyed(text, side) {
    const rgb = Uint8ClampedArray.from(atob(text || ""), (letter) => letter.charCodeAt(0));
    const small = document.createElement("canvas");
    small.width = small.height = side;
    const data = new ImageData(side, side);
    for (let i = 0; 3 * i < rgb.length; i++) {
      data.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
    }
    small.getContext("2d").putImageData(data, 0, 0);
    return { count: rgb.length / 3, text, small };
  }

  // Where everything lies on the canvas.
  layout() {
    const { columns = 1, pictures = 1, grid = 16 } = this.value || {};
    const size = this.canvas.width;
    const lines = Math.ceil(pictures / columns);
    const gap = columns > 1 ? Math.round(size / 90) : 0;
    const each = (size - gap * (columns - 1)) / columns;
    const height = Math.round(lines * each + gap * (lines - 1));
    const corner = (i) => [(i % columns) * (each + gap), Math.floor(i / columns) * (each + gap)];
    return { columns, pictures, grid, size, height, each, cell: each / grid, corner };
  }

  paint(head) {
    const { columns, pictures, grid, size, height, each, cell, corner } = this.layout();
    const { context, image } = this;
    const style = getComputedStyle(this.root);
    const [paper, dot, gap] = ["--paper", "--dot", "--gap"].map((name) =>
      style.getPropertyValue(name).trim(),
    );
    const whole = Math.floor(head);
    this.canvas.height = height;
    context.fillStyle = gap || "#fff";
    context.fillRect(0, 0, size, height);
    for (let i = 0; i < pictures; i++) {
      const [left, top] = corner(i);
      context.fillStyle = paper;
      context.fillRect(left, top, each, each);
      context.fillStyle = dot;
      for (let code = whole; code < grid * grid; code++) {
        const [x, y] = [(code % grid) + 0.43, Math.floor(code / grid) + 0.43];
        context.fillRect(left + x * cell, top + y * cell, cell * 0.14, cell * 0.14);
      }
      // a run of codes, as rectangles of lines, from a picture of `unit` pixels a code
      const put = (source, unit, x, y, from, to) => {
        for (let at = from; at < to; ) {
          const line = Math.floor(at / grid);
          const [first, end] = [at - line * grid, Math.min(to - line * grid, grid)];
          context.drawImage(
            source, x + first * unit, y + line * unit, (end - first) * unit, unit,
            left + first * cell, top + line * cell, (end - first) * cell, cell,
          );
          at = line * grid + end;
        }
      };
      const mine = this.colours[i];
      const upto = Math.min(whole, mine ? mine.count : 0);
      const full = image ? Math.min(whole, this.covers) : 0;
      const ended = whole === grid * grid;
      // what is whole long enough is pixels alone
      const sharp = image && this.faded >= 1 ? Math.max(0, ended ? full : full - TURN) : 0;
      context.imageSmoothingEnabled = false;
      if (mine) put(mine.small, 1, 0, 0, sharp, upto);
      context.imageSmoothingEnabled = true;
      if (!image) continue;
      const unit = image.naturalWidth / columns / grid;
      const [x, y] = [(i % columns) * grid * unit, Math.floor(i / columns) * grid * unit];
      put(image, unit, x, y, 0, sharp);
      for (let code = sharp; code < full; code++) {
        const age = ended ? 1 : Math.min(1, (head - code) / TURN);
        context.globalAlpha = mine ? age * this.faded : 1;
        put(image, unit, x, y, code, code + 1);
      }
      context.globalAlpha = 1;
    }
    this.scissors();
    if (this.hover) this.frame(this.hover, 0.06);
    if (this.mark) this.frame(this.mark, 0.14);
  }

  // All of the pictures at once, behind as much noise as is not taken away yet.
  denoise(share) {
    const { size, height } = this.layout();
    const { context, image } = this;
    this.canvas.height = height;
    if (image) context.drawImage(image, 0, 0, size, height);
    this.grain ??= noise(64);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = image ? 1 - share : 1;
    context.drawImage(this.grain, 0, 0, size, height);
    context.globalAlpha = 1;
  }

  scissors() {
    const { cell, size, height } = this.layout();
    const { context } = this;
    if (!this.value) return;
    if (this.over !== null && this.over !== undefined) {
      context.globalAlpha = 0.6;
      context.fillStyle = getComputedStyle(this.root).getPropertyValue("--paper").trim();
      context.fillRect(0, this.over * cell, size, height);
      context.globalAlpha = 1;
    }
    if (!this.cut) return;
    context.lineWidth = Math.max(2, cell / 12);
    for (const [colour, dash] of [["#12202b", []], ["#fff", [cell / 2, cell / 2]]]) {
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(0, this.cut * cell);
      context.lineTo(size, this.cut * cell);
      context.stroke();
    }
    context.setLineDash([]);
  }

  // A light frame in a dark one, as thick as a share of a code.
  frame({ picture, line, column }, thick) {
    const { cell, corner } = this.layout();
    const [left, top] = corner(picture);
    const width = Math.max(1, cell * thick);
    for (const [colour, out] of [
      ["#12202b", 3 * width],
      ["#fff", width],
    ]) {
      this.context.strokeStyle = colour;
      this.context.lineWidth = width;
      const [x, y] = [left + column * cell - out / 2, top + line * cell - out / 2];
      this.context.strokeRect(x, y, cell + out, cell + out);
    }
  }

  // The code under a pointer: picture, line and column; null beside them.
  place({ offsetX, offsetY }) {
    if (!this.value) return null;
    const { columns, pictures, grid, each, cell, corner } = this.layout();
    const scale = this.canvas.width / this.canvas.clientWidth;
    const [x, y] = [offsetX * scale, offsetY * scale];
    for (let picture = 0; picture < pictures; picture++) {
      const [left, top] = corner(picture);
      if (x < left || y < top || x >= left + each || y >= top + each) continue;
      const cut = (at) => Math.max(0, Math.min(grid - 1, Math.floor(at / cell)));
      return { picture, line: cut(y - top), column: cut(x - left) };
    }
    return null;
  }

  // As many pixels as the screen has; returns whether that is news.
  fit() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.min(1600, Math.round(this.canvas.clientWidth * ratio));
    if (!width || Math.abs(width - this.canvas.width) <= 1) return false;
    this.canvas.width = width;
    return true;
  }
}

function noise(side) {
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const data = new ImageData(side, side);
  for (let i = 0; i < data.data.length; i++) data.data[i] = i % 4 === 3 ? 255 : 256 * Math.random();
  small.getContext("2d").putImageData(data, 0, 0);
  return small;
}
