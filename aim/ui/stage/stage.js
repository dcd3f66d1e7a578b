// The server says what is settled; this shows it code by code, at a pace to look at.
const root = element.querySelector(".aim-stage");
const canvas = root.querySelector("canvas");
const film = new Film(canvas, root);
const find = (name) => root.querySelector(".aim-" + name);
const [play, scrub, live, full] = ["play", "scrub", "live", "full"].map(find);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

const WATCH = 4; // seconds a picture
const LAG = 0.3; // seconds behind the model at most, where nobody wants it slower
const ICONS = {
  Replay: "M12 5V1L6 6l6 5V7a5 5 0 1 1-5 5H5a7 7 0 1 0 7-7z",
  Play: "M7 4v16l13-8z",
  Pause: "M6 4h4v16H6zM14 4h4v16h-4z",
};
const ENDED = ["done", "stopped"]; // what the server sends no more of
const HOLD = 2.5; // seconds that a recording rests before it plays again

let shown = null; // the value on stage
let head = 0; // codes of each picture that are shown
let held = false; // by whoever moved the scrubber or pressed pause
let last = 0; // time of the frame before
let rest = 0; // seconds that a finished recording has rested
let painted = ""; // what was painted last
const beside = []; // what else comes with the picture: takes, paints and fits like a film

const total = () => film.total;

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
  scrub.disabled = !shown || !film.known;
  play.disabled = !shown || !film.known;
  const does = done || !shown ? "Replay" : held ? "Play" : "Pause";
  play.setAttribute("aria-label", does);
  play.querySelector("path").setAttribute("d", ICONS[does]);
  find("shown").textContent = shown ? `${n} / ${all}` : "";
  const tag = find("tag");
  tag.textContent = shown?.note || "";
  tag.hidden = !shown?.note;
  const what = shown ? `${shown.title}: ${n} of ${all} codes` : "Nothing is drawn yet";
  if (!shown || done || whole % 32 === 0) canvas.setAttribute("aria-label", what);
  // what is still being shown can be stopped, too, when the model is done
  const stop = root.closest(".tabitem")?.querySelector("button[id$='-stop']");
  if (stop && shown && !shown.loop && ENDED.includes(shown.state)) {
    stop.disabled = root.dataset.state !== "playing";
  }
  for (const button of root.querySelectorAll(".aim-save")) button.disabled = !shown?.made?.length;
  find("keep").hidden = !shown?.made?.length || shown.state !== "stopped";
}

function step(now) {
  const passed = Math.min(0.1, (now - last) / 1000);
  last = now;
  if (!element.isConnected) return;
  requestAnimationFrame(step);
  if (!shown || !root.offsetParent) return; // nobody sees it: another tab is shown
  const end = Math.min(film.known, total());
  if (!held && head < end) {
    const slow = shown.loop || live.ariaPressed !== "true" ? total() / WATCH : Infinity;
    const ended = film.known >= total() ? total() / 2 : 8;
    head = Math.min(end, head + passed * Math.min(slow, Math.max(ended, (end - head) / LAG)));
    if (calm.matches) head = end;
  }
  if (shown.loop && !held && head >= total() && !calm.matches) {
    rest += passed;
    if (rest > HOLD) [head, rest] = [0, 0];
  }
  if (film.faded < 1) film.faded = Math.min(1, film.faded + passed / 0.4);
  const { known, covers, faded } = film;
  const state = [shown.run, head.toFixed(2), known, covers, faded, canvas.width, held].join();
  if (state === painted) return;
  painted = state;
  for (const one of [film, ...beside]) one.paint(head);
  tell();
}

// what is done here with a picture is the visit's matter, wherever that is on the page
function tellVisit(what, detail) {
  document.dispatchEvent(new CustomEvent("aim-" + what, { detail }));
}

// Codes of a recording that were seen before this was here.
function begun(total) {
  const [painted] = performance.getEntriesByName("first-contentful-paint");
  const seen = innerWidth >= 1280 && document.querySelector(".aim-before div");
  if (!painted || !seen) return 0;
  const share = (performance.now() - painted.startTime) / 1000 / WATCH;
  return share < 1 ? share * total : 0;
}

async function take() {
  const value = props.value;
  if (!value) return;
  const fresh = !shown || shown.run !== value.run;
  if (fresh) {
    film.clear();
    [head, held, rest] = [value.begin || 0, false, 0];
    if (value.loop && !shown) head = begun(value.grid ** 2);
    if (value.loop && calm.matches) head = value.grid ** 2;
  }
  const before = shown?.run === value.run && shown.state;
  shown = JSON.parse(JSON.stringify(value));
  if (shown.made && shown.state === "done" && before !== "done") tellVisit("made", shown.made);
  const taken = film.take(shown, value.loop ? 0 : head);
  for (const one of beside) one.take(shown, fresh);
  root.dataset.known = film.known;
  painted = "";
  await taken;
  painted = "";
}

function fit() {
  const all = [film, ...beside];
  if (all.map((one) => one.fit()).some(Boolean)) for (const one of all) one.paint(head);
}

canvas.addEventListener("click", (event) => {
  const place = film.place(event);
  if (!place) return;
  trigger("click", place);
  const made = shown.opens && shown.made?.[place.picture];
  if (made) tellVisit("open", made);
});
play.addEventListener("click", () => {
  if (head >= total()) [head, held, rest] = [0, false, 0];
  else held = !held;
  painted = "";
});
scrub.addEventListener("input", () => {
  [head, held] = [Math.min(Number(scrub.value), film.known), true];
  if (head >= total()) held = false;
  painted = "";
});
full.addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen?.();
});
find("saves").addEventListener("click", ({ target }) => {
  const { kind, to } = target.dataset;
  if (kind) window.aim.save(target, shown.made, find("saying"));
  else if (to) tellVisit("go", { to, one: shown.made[0] });
  else if (target.matches(".aim-link")) window.aim.copy(shown.made[0].link, find("saying"));
  else if (target.matches(".aim-keep")) {
    tellVisit("made", shown.made);
    target.disabled = true;
  }
});
live.ariaPressed = localStorage.getItem("aim-live") || "false";
live.addEventListener("click", () => {
  live.ariaPressed = String(live.ariaPressed !== "true");
  localStorage.setItem("aim-live", live.ariaPressed);
});
// Stop keeps what is shown; Play shows the rest
document.addEventListener("aim-stop", () => {
  if (!root.offsetParent || shown?.loop || head >= total()) return;
  held = head > 0;
  painted = "";
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (painted = ""));
new ResizeObserver(fit).observe(canvas);
watch("value", take);
take();
fit();
film.paint(head);
tell();
requestAnimationFrame(step);
