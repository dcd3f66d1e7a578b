// The server says what is settled; this shows it code by code. A code appears as its own colour, and
// turns into pixels as soon as those are there.
const root = element.querySelector(".aim-stage");
const canvas = root.querySelector("canvas");
const context = canvas.getContext("2d");
const find = (name) => root.querySelector(".aim-" + name);
const [play, scrub, live, full] = ["play", "scrub", "live", "full"].map(find);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

const WATCH = 4; // seconds a picture
const TURN = 10; // codes after which a colour has become pixels
const LAG = 0.3; // seconds behind the model at most, where nobody wants it slower
const ICONS = {
  Replay: "M12 5V1L6 6l6 5V7a5 5 0 1 1-5 5H5a7 7 0 1 0 7-7z",
  Play: "M7 4v16l13-8z",
  Pause: "M6 4h4v16H6zM14 4h4v16h-4z",
};
const HOLD = 2.5; // seconds that a recording rests before it plays again

let shown = null; // the value on stage
let head = 0; // codes of each picture that are shown
let held = false; // by whoever moved the scrubber or pressed pause
let last = 0; // time of the frame before
let rest = 0; // seconds that a finished recording has rested
let image = null; // all pictures side by side, decoded
let covers = 0; // codes of each that are in it
let faded = 1; // how far a new image has come in
let colours = []; // of each picture, a grid of one pixel a code
let known = 0; // codes of each picture that have come
let painted = ""; // what was painted last

const total = () => (shown ? shown.grid * shown.grid : 256);
const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function bytes(text) {
  const raw = atob(text || "");
  return Uint8ClampedArray.from(raw, (letter) => letter.charCodeAt(0));
}

function grid(text, side) {
  // one pixel a code, transparent where there is none
  const rgb = bytes(text);
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const data = new ImageData(side, side);
  for (let i = 0; 3 * i < rgb.length; i++) {
    data.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
  }
  small.getContext("2d").putImageData(data, 0, 0);
  return { count: rgb.length / 3, text, small };
}

function cells(from, to, draw) {
  // a run of codes as rectangles of the grid: line, first column, end
  const side = shown.grid;
  for (let at = from; at < to;) {
    const line = Math.floor(at / side);
    const end = Math.min(to, (line + 1) * side);
    draw(line, at - line * side, end - line * side);
    at = end;
  }
}

function paint() {
  const size = canvas.width;
  const columns = shown ? shown.columns : 1;
  const count = shown ? shown.pictures : 1;
  const side = shown ? shown.grid : 16;
  const lines = Math.ceil(count / columns);
  const gap = columns > 1 ? Math.round(size / 90) : 0;
  const each = (size - gap * (columns - 1)) / columns;
  const cell = each / side;
  const [paper, dot] = [style("--paper"), style("--dot")];
  canvas.height = Math.round(lines * each + gap * (lines - 1));
  context.fillStyle = style("--gap") || "#fff";
  context.fillRect(0, 0, size, canvas.height);
  const whole = Math.floor(head);
  for (let i = 0; i < count; i++) {
    const [left, top] = [(i % columns) * (each + gap), Math.floor(i / columns) * (each + gap)];
    context.fillStyle = paper;
    context.fillRect(left, top, each, each);
    context.fillStyle = dot;
    for (let code = whole; code < side * side; code++) {
      const x = left + ((code % side) + 0.43) * cell;
      const y = top + (Math.floor(code / side) + 0.43) * cell;
      context.fillRect(x, y, cell * 0.14, cell * 0.14);
    }
    const put = (source, unit, x, y) => (line, from, to) =>
      context.drawImage(
        source,
        x + from * unit,
        y + line * unit,
        (to - from) * unit,
        unit,
        left + from * cell,
        top + line * cell,
        (to - from) * cell,
        cell,
      );
    const mine = colours[i];
    const upto = Math.min(whole, mine ? mine.count : 0);
    const full = image ? Math.min(whole, covers) : 0;
    // what is whole long enough is pixels alone
    const sharp = image && faded >= 1 ? Math.max(0, whole === total() ? full : full - TURN) : 0;
    context.imageSmoothingEnabled = false;
    if (mine) cells(sharp, upto, put(mine.small, 1, 0, 0));
    context.imageSmoothingEnabled = true;
    if (!image) continue;
    const unit = image.naturalWidth / columns / side;
    const [x, y] = [(i % columns) * side * unit, Math.floor(i / columns) * side * unit];
    cells(0, sharp, put(image, unit, x, y));
    for (let code = sharp; code < full; code++) {
      const age = whole === total() ? 1 : Math.min(1, (head - code) / TURN);
      context.globalAlpha = mine ? age * faded : 1;
      cells(code, code + 1, put(image, unit, x, y));
    }
    context.globalAlpha = 1;
  }
}

function tell() {
  // the words and numbers around the picture
  const whole = Math.floor(head);
  const [n, all] = shown ? [whole * shown.pictures, total() * shown.pictures] : [0, 256];
  const done = shown && whole === total();
  root.dataset.shown = whole;
  root.dataset.state = !shown ? "empty" : done ? "done" : held ? "held" : "playing";
  root.dataset.loop = Boolean(shown?.loop);
  scrub.max = total();
  scrub.value = whole;
  scrub.disabled = !shown || !known;
  play.disabled = !shown || !known;
  const does = done || !shown ? "Replay" : held ? "Play" : "Pause";
  play.setAttribute("aria-label", does);
  play.querySelector("path").setAttribute("d", ICONS[does]);
  find("shown").textContent = shown ? `${n} / ${all}` : "";
  const tag = find("tag");
  tag.textContent = shown?.note || "";
  tag.hidden = !shown?.note;
  const what = shown ? `${shown.title}: ${n} of ${all} codes` : "Nothing is drawn yet";
  if (!shown || done || whole % 32 === 0) canvas.setAttribute("aria-label", what);
  canvas.addEventListener("click", ({ offsetX, offsetY }) => {
    if (!shown) return;
    const scale = shown.columns / canvas.clientWidth;
    const [x, y] = [offsetX * scale, offsetY * scale];
    const cell = (at) => Math.min(shown.grid - 1, Math.floor((at % 1) * shown.grid));
    const picture = Math.floor(y) * shown.columns + Math.floor(x);
    trigger("click", { picture, line: cell(y), column: cell(x) });
  });
  for (const button of root.querySelectorAll(".aim-save")) button.disabled = !shown?.name;
}

function step(now) {
  const passed = Math.min(0.1, (now - last) / 1000);
  last = now;
  if (!element.isConnected) return;
  requestAnimationFrame(step);
  if (!shown || !root.offsetParent) return; // nobody sees it: another tab is shown
  const end = Math.min(known, total());
  if (!held && head < end) {
    const slow = shown.loop || live.ariaPressed !== "true" ? total() / WATCH : Infinity;
    const ended = known >= total() ? total() / 2 : 8;
    head = Math.min(end, head + passed * Math.min(slow, Math.max(ended, (end - head) / LAG)));
    if (calm.matches) head = end;
  }
  if (shown.loop && !held && head >= total() && !calm.matches) {
    rest += passed;
    if (rest > HOLD) [head, rest] = [0, 0];
  }
  if (faded < 1) faded = Math.min(1, faded + passed / 0.4);
  const state = [shown.run, head.toFixed(2), known, covers, faded, canvas.width, held].join();
  if (state === painted) return;
  painted = state;
  paint();
  tell();
}

async function take() {
  const value = props.value;
  if (!value) return;
  const fresh = !shown || shown.run !== value.run;
  if (fresh) {
    [head, held, rest, image, covers, faded, colours] = [0, false, 0, null, 0, 1, []];
    head = value.loop && calm.matches ? value.grid ** 2 : value.begin || 0;
  }
  shown = JSON.parse(JSON.stringify(value));
  colours = shown.colours.map((text, i) =>
    colours[i]?.text === text ? colours[i] : grid(text, shown.grid),
  );
  known = colours.length ? Math.min(...colours.map((one) => one.count)) : 0;
  if (shown.state === "stopped") known = Math.max(0, ...colours.map((one) => one.count));
  painted = "";
  root.dataset.known = known;
  const address = shown.image?.url ?? shown.image;
  if (address && address !== image?.dataset.from) {
    const next = new Image();
    next.dataset.from = address;
    next.src = address;
    await next.decode().catch(() => null);
    if (!next.naturalWidth || shown.run !== value.run) return;
    // what is on show as colours turns into pixels slowly, and the rest will come as pixels
    faded = head > 0 && (!image || covers < value.covers) ? 0 : 1;
    [image, covers, painted] = [next, value.covers, ""];
  }
}

function fit() {
  const width = Math.min(1600, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
  if (width && Math.abs(width - canvas.width) > 1) {
    canvas.width = width;
    painted = "";
    paint();
  }
}

async function save(button) {
  const say = find("saying");
  const [name, kind] = [shown.name, button.dataset.kind];
  say.textContent = `Making the ${button.textContent} …`;
  button.disabled = true;
  try {
    const root = window.gradio_config?.root || "";
    const answer = await fetch(`${root}/drawings/${name}/${kind}`);
    if (!answer.ok) throw new Error(await answer.text());
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = named ? named[1] : "aim." + kind;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say.textContent = "";
  } catch (error) {
    const known = error.message && error.message.length < 200;
    say.textContent = known ? error.message : `The ${button.textContent} could not be made.`;
  }
  button.disabled = !shown?.name;
}

play.addEventListener("click", () => {
  if (head >= total()) [head, held, rest] = [0, false, 0];
  else held = !held;
  painted = "";
});
scrub.addEventListener("input", () => {
  [head, held] = [Math.min(Number(scrub.value), known), true];
  if (head >= total()) held = false;
  painted = "";
});
full.addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen?.();
});
for (const button of root.querySelectorAll(".aim-save")) {
  button.addEventListener("click", () => save(button));
}
live.ariaPressed = localStorage.getItem("aim-live") || "false";
live.addEventListener("click", () => {
  live.ariaPressed = String(live.ariaPressed !== "true");
  localStorage.setItem("aim-live", live.ariaPressed);
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (painted = ""));
new ResizeObserver(fit).observe(canvas);
watch("value", take);
take();
fit();
paint();
tell();
requestAnimationFrame(step);
