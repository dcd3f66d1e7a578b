// Beside the picture a map of it, with one mark in both and words for the code under the pointer.
const seen = root.querySelector(".aim-seen");
const chart = new Film(root.querySelector(".aim-map canvas"), root);
let facts = []; // of each code: log probability, entropy, pull of the class
let guessed = []; // in order: behind how many codes, and in which colours

const share = (value) => {
  const percent = 100 * Math.exp(value);
  return percent < 0.01 ? "under 0.01%" : Number(percent.toPrecision(2)) + "%";
};
const many = (value) => {
  const count = Math.exp(value);
  const shown = count < 10 ? count.toFixed(1) : Math.round(count);
  return `as if ${shown} codes were equally likely`;
};

function words({ line, column }) {
  const where = `Row ${line + 1}, column ${column + 1}`;
  const fact = facts[line * film.value.grid + column];
  if (fact === null) return `${where}: given, not drawn`;
  if (guess(line * film.value.grid + column)) return `${where}: guessed, not settled`;
  if (!fact) return `${where}: not drawn yet`;
  return `${where}: drawn at ${share(fact[0])}, ${many(fact[1])}; pull ${fact[2].toFixed(2)} nats`;
}

// The colour in which the code at `place` is guessed as far as is shown, if it is.
function guess(place) {
  const { at, colours } = guessed.findLast(({ at }) => at <= head) || { at: 0, colours: [] };
  return place >= Math.floor(head) ? colours[place - at] : undefined;
}

function guesses() {
  const { grid, cell } = film.layout();
  for (let place = Math.floor(head); place < grid * grid; place++) {
    const colour = guess(place);
    if (!colour) continue;
    film.context.fillStyle = colour;
    const [x, y] = [(place % grid) + 0.3, Math.floor(place / grid) + 0.3];
    film.context.fillRect(x * cell, y * cell, cell * 0.4, cell * 0.4);
  }
}

function point(what, place) {
  film[what] = chart[what] = place;
  const said = film.hover || film.mark;
  seen.querySelector(".aim-here").textContent = said && film.value ? words(said) : "";
  painted = "";
}

let answered = 0; // until when answers to what was chosen before are none to this

function choose(place) {
  answered = performance.now() + 3000;
  point("mark", place);
  trigger("click", place);
}

beside.push({
  take(value, fresh) {
    if (fresh) chart.clear();
    if (fresh) guessed = [];
    const bytes = [...atob(value.guesses || "")].map((letter) => letter.charCodeAt(0));
    const said = [];
    while (bytes.length) said.push(`rgb(${bytes.splice(0, 3).join(" ")})`);
    if (film.known > (guessed.at(-1)?.at ?? -1)) guessed.push({ at: film.known, colours: said });
    const { run, grid, state, map } = value;
    const colours = [map?.colours || ""];
    chart.take({ run, grid, state, colours, pictures: 1, columns: 1 });
    facts = map?.facts || [];
    seen.querySelector(".aim-scale").hidden = !map?.ends;
    for (const [i, end] of ["low", "high"].entries()) {
      seen.querySelector(".aim-" + end).textContent = map?.ends?.[i] || "";
    }
    const what = map ? `${map.title}${map.ends ? `, from ${map.ends.join(" to ")}` : ""}` : "A map";
    chart.canvas.setAttribute("aria-label", what);
    point("mark", film.mark);
  },
  paint: (head) => {
    guesses();
    chart.paint(head);
  },
  fit: () => chart.fit(),
});

for (const { canvas } of [film, chart]) {
  const one = canvas === film.canvas ? film : chart;
  canvas.addEventListener("pointermove", (event) => point("hover", one.place(event)));
  canvas.addEventListener("pointerleave", () => point("hover", null));
  if (one === film) canvas.addEventListener("click", (event) => point("mark", one.place(event)));
  else canvas.addEventListener("click", (event) => one.place(event) && choose(one.place(event)));
}
seen.querySelector(".aim-steps").addEventListener("click", ({ target }) => {
  if (!target.dataset.by || !film.value) return;
  const [down, right] = target.dataset.by.split(",").map(Number);
  const inside = (at) => Math.max(0, Math.min(film.value.grid - 1, at));
  const { line, column } = film.mark || { line: 0, column: 0 };
  choose({ picture: 0, line: inside(line + down), column: inside(column + right) });
});
const marked = () => {
  if (!props.mark) return;
  const late = ["line", "column"].some((one) => props.mark[one] !== film.mark?.[one]);
  if (late && performance.now() < answered) return;
  answered = 0;
  point("mark", { picture: 0, ...props.mark });
};
watch("mark", marked);
marked();
new ResizeObserver(fit).observe(chart.canvas);
