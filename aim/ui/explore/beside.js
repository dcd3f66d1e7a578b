// A click cuts the picture: the line of codes that is clicked and all below are drawn anew.
const says = root.querySelector(".aim-cut");

function cut(rows, over) {
  [film.cut, film.over] = [rows, over];
  const line = over ?? rows;
  const lines = line === 1 ? "row" : `${line} rows`;
  says.textContent = !film.value
    ? ""
    : line
      ? `${over ? "Click: the" : "The"} first ${lines} stay; Draw makes the rest anew.`
      : "Click the picture where to cut it: what is above stays.";
  painted = "";
}

canvas.addEventListener("pointermove", (event) => cut(film.cut, film.place(event)?.line));
canvas.addEventListener("pointerleave", () => cut(film.cut, null));
canvas.addEventListener("click", (event) => cut(film.place(event)?.line ?? film.cut, null));
beside.push({ take: () => cut(props.cut ?? 0, null), paint: () => {}, fit: () => false });
watch("cut", () => cut(props.cut ?? 0, null));
