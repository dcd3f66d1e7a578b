// Cells of the finished picture are uncovered when their code was there; until the image decoder
// is done a gap is left between them.
const root = element.querySelector(".aim-replay");
const lanes = [...root.querySelectorAll(".aim-racer")];
const pace = root.querySelector(".aim-pace");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
let race = null,
  sheets = [],
  frame = 0;

const seconds = (value) => value.toFixed(value < 10 ? 3 : 1) + " s";

function cover(lane, racer, sheet, drawn, done) {
  const canvas = lane.querySelector("canvas"),
    context = canvas.getContext("2d");
  const style = getComputedStyle(lane),
    columns = race.columns,
    lines = Math.ceil(race.pictures / columns);
  canvas.height = Math.round((canvas.width * lines) / columns);
  const size = canvas.width / columns,
    cell = size / race.grid,
    gap = done ? 0 : Math.max(0.5, cell * 0.07);
  const paper = style.getPropertyValue("--paper"),
    dot = style.getPropertyValue("--dot");
  const width = sheet.naturalWidth / columns / race.grid;
  context.fillStyle = paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (done) context.drawImage(sheet, 0, 0, canvas.width, canvas.height);
  else
    for (let i = 0; i < race.pictures; i++) {
      const left = (i % columns) * size,
        top = Math.floor(i / columns) * size;
      const first = (i % columns) * race.grid,
        above = Math.floor(i / columns) * race.grid;
      for (let code = 0; code < race.codes; code++) {
        const column = code % race.grid,
          row = Math.floor(code / race.grid);
        const x = left + column * cell,
          y = top + row * cell;
        if (code < drawn)
          context.drawImage(
            sheet,
            (first + column) * width,
            (above + row) * width,
            width,
            width,
            x + gap / 2,
            y + gap / 2,
            cell - gap,
            cell - gap,
          );
        else {
          context.fillStyle = dot;
          context.fillRect(x + cell * 0.42, y + cell * 0.42, cell * 0.16, cell * 0.16);
        }
      }
    }
  context.fillStyle = paper;
  for (let i = 1; i < columns; i++) context.fillRect(i * size - 2, 0, 4, canvas.height);
  for (let i = 1; i < lines; i++) context.fillRect(0, i * size - 2, canvas.width, 4);
}

function show(index, clock) {
  const lane = lanes[index],
    racer = race.racers[index];
  const drawn = racer.code_seconds.filter((at) => at <= clock).length,
    done = clock >= racer.seconds;
  const state = done ? "done" : String(drawn);
  lane.querySelector(".aim-clock").textContent = seconds(Math.min(clock, racer.seconds));
  if (lane.dataset.drawn === state) return done;
  lane.dataset.drawn = state;
  cover(lane, racer, sheets[index], drawn, done);
  lane.querySelector(".aim-count").textContent = `${drawn} / ${race.codes} codes`;
  lane.querySelector(".aim-meter > div").style.width = (100 * drawn) / race.codes + "%";
  lane.querySelector(".aim-arrival").textContent = done
    ? racer.arrival
    : drawn === race.codes
      ? "decoding the picture"
      : "";
  lane
    .querySelector("canvas")
    .setAttribute("aria-label", done ? racer.alt : `${racer.name} is drawing`);
  return done;
}

function finish() {
  for (const index of [0, 1]) show(index, Infinity);
  root.dataset.state = "done";
  root.querySelector(".aim-verdict").textContent = race.result;
}

function play() {
  cancelAnimationFrame(frame);
  for (const lane of lanes) delete lane.dataset.drawn;
  root.querySelector(".aim-verdict").textContent = "";
  if (calm.matches) return finish();
  root.dataset.state = "playing";
  let clock = 0,
    last = null;
  const tick = (now) => {
    clock += last === null ? 0 : ((now - last) / 1000) * Number(pace.value);
    last = now;
    const done = [0, 1].map((index) => show(index, clock));
    if (done.every(Boolean)) finish();
    else frame = requestAnimationFrame(tick);
  };
  frame = requestAnimationFrame(tick);
}

async function load() {
  cancelAnimationFrame(frame);
  const asked = (race = props.value);
  root.hidden = !asked;
  root.dataset.state = asked ? "loading" : "empty";
  if (!asked) return;
  lanes.forEach((lane, index) => {
    lane.querySelector(".aim-name").textContent = asked.racers[index].name;
    lane.querySelector(".aim-kind").textContent = asked.racers[index].kind;
  });
  const images = await Promise.all(
    asked.racers.map(async (racer) => {
      const image = new Image();
      image.src = racer.sheet.url;
      await image.decode();
      return image;
    }),
  );
  if (race !== asked) return;
  sheets = images;
  play();
}

root.querySelector(".aim-again").addEventListener("click", () => sheets.length && play());
watch("value", load);
load();
