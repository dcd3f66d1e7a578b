// Two pictures come by one clock, each code when its model had it; the replay begins when somebody
// sees it.
const root = element.querySelector(".aim-replay");
const lanes = [...root.querySelectorAll(".aim-racer")];
const films = lanes.map((lane) => new Film(lane.querySelector("canvas"), root));
const pace = root.querySelector(".aim-pace");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const LONG = 3; // seconds of a race that needs no slowing down to be seen
let race = null;
let ready = false; // the pictures are there, and the race was not begun
let inView = false;
let paced = false; // somebody chose the pace
let frame = 0;

const seconds = (value) => value.toFixed(value < 10 ? 3 : 1) + " s";

// Codes that a model had after so many seconds, with the part of the next one.
function codes(times, clock) {
  let done = 0;
  while (done < times.length && times[done] <= clock) done++;
  if (done === times.length) return done;
  const before = done ? times[done - 1] : 0;
  return done + Math.max(0, Math.min(0.999, (clock - before) / (times[done] - before)));
}

function show(index, clock) {
  const [lane, racer, film] = [lanes[index], race.racers[index], films[index]];
  const find = (name) => lane.querySelector(".aim-" + name);
  const [head, done] = [codes(racer.code_seconds, clock), clock >= racer.seconds];
  const whole = Math.floor(head);
  const { unit = "codes", code_seconds: times } = racer;
  find("clock").textContent = seconds(Math.min(clock, racer.seconds));
  if (unit === "codes") film.paint(head);
  else film.denoise(head / times.length);
  const state = done ? "done" : String(whole);
  if (lane.dataset.drawn === state) return done;
  lane.dataset.drawn = state;
  find("count").textContent = `${whole} / ${times.length} ${unit}`;
  find("meter").firstChild.style.width = (100 * whole) / times.length + "%";
  const decoding = whole === times.length ? "decoding the picture" : "";
  find("arrival").textContent = done ? racer.arrival : decoding;
  film.canvas.setAttribute("aria-label", done ? racer.alt : `${racer.name} is drawing`);
  return done;
}

function finish() {
  cancelAnimationFrame(frame);
  for (const index of [0, 1]) show(index, Infinity);
  root.dataset.state = "done";
  root.querySelector(".aim-verdict").textContent = race.result;
}

function play() {
  cancelAnimationFrame(frame);
  ready = false;
  for (const lane of lanes) delete lane.dataset.drawn;
  root.querySelector(".aim-verdict").textContent = "";
  if (calm.matches) return finish();
  root.dataset.state = "playing";
  let [clock, last] = [0, null];
  const tick = (now) => {
    clock += last === null ? 0 : ((now - last) / 1000) * Number(pace.value);
    last = now;
    if (![0, 1].map((index) => show(index, clock)).every(Boolean)) {
      frame = requestAnimationFrame(tick);
    } else finish();
  };
  frame = requestAnimationFrame(tick);
}

async function load(asked = props.value) {
  if (!asked) {
    // another race is being measured: what is here must not take its time
    if (race) finish();
    return;
  }
  cancelAnimationFrame(frame);
  [race, ready] = [JSON.parse(JSON.stringify(asked)), false];
  const mine = race;
  root.hidden = false;
  root.dataset.state = "loading";
  root.querySelector(".aim-badge").textContent = race.badge;
  if (!paced) pace.value = Math.max(...race.racers.map((one) => one.seconds)) > LONG ? 1 : 0.25;
  const { run, grid, pictures, columns } = race;
  const taken = race.racers.map(({ name, kind, colours, image }, index) => {
    lanes[index].querySelector(".aim-name").textContent = name;
    lanes[index].querySelector(".aim-kind").textContent = kind;
    films[index].clear();
    return films[index].take({ run, grid, pictures, columns, colours, image, covers: grid ** 2 });
  });
  await Promise.all(taken);
  if (race !== mine) return;
  for (const film of films) film.fit();
  for (const index of [0, 1]) show(index, 0);
  ready = true;
  if (inView) play();
  else if (race.fresh) root.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

new IntersectionObserver(
  (entries) => {
    inView = entries[entries.length - 1].intersectionRatio >= 0.4;
    if (inView && ready) play();
  },
  { threshold: [0, 0.4] },
).observe(root.querySelector(".aim-lanes"));
new ResizeObserver(() => {
  const fresh = films.map((film) => film.fit());
  if (race && fresh.some(Boolean) && root.dataset.state === "done") finish();
}).observe(root);
root.querySelector(".aim-again").addEventListener("click", () => race && play());
pace.addEventListener("change", () => (paced = true));
watch("value", () => load());
load();
if (props.recorded) {
  const seen = new IntersectionObserver(async ([{ isIntersecting }]) => {
    if (!isIntersecting) return;
    seen.disconnect();
    const answer = await fetch(`${window.gradio_config?.root || ""}/race.json`).catch(() => null);
    if (!answer?.ok) return;
    const races = await answer.json();
    const which = root.querySelector(".aim-which");
    const pick = which.querySelector("select");
    pick.replaceChildren(...races.map(({ title }) => new Option(title)));
    pick.addEventListener("change", () => load(races[pick.selectedIndex]));
    which.hidden = races.length < 2;
    if (!race) load(races[0]);
  });
  seen.observe(element);
}
