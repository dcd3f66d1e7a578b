// A combobox as of the ARIA practices: what is typed filters the list, arrows move in it, Enter, Tab
// and leaving it take what is marked, Esc gives up.
const root = element.querySelector(".aim-picker");
const input = root.querySelector("input");
const list = root.querySelector("[role=listbox]");
const panel = root.querySelector(".aim-picker-list");
const said = root.querySelector(".aim-picker-said");
const id = element.closest("[id]")?.id || "picker";
const empty = { kinds: [], classes: {} };

let entries = [];
let shown = []; // what the list holds
let active = -1; // which of it is marked
let open = false;

root.querySelector("label").textContent = props.label;
root.querySelector("label").htmlFor = input.id = `${id}-input`;
root.querySelector(".aim-picker-info").textContent = props.info;
list.id = `${id}-list`;
list.setAttribute("aria-label", "Classes");
input.setAttribute("aria-controls", list.id);

// For all pickers of the page once, when somebody begins to pick.
function catalogue() {
  window.aimCatalogue ??= fetch(`${window.gradio_config?.root || ""}/catalogue.json`)
    .then((answer) => (answer.ok ? answer.json() : empty))
    .catch(() => empty);
  return window.aimCatalogue;
}

async function known() {
  const choices = props.choices || [];
  if (!entries.length) entries = prepare(choices, empty);
  entries = prepare(choices, await catalogue());
  if (open) filter(true);
}

function title() {
  const found = (props.choices || []).find(([, index]) => index === props.value);
  return found ? found[0] : String(props.value ?? "");
}

function mark(at) {
  list.children[active]?.setAttribute("aria-selected", "false");
  active = at;
  const option = list.children[active];
  option?.setAttribute("aria-selected", "true");
  option?.scrollIntoView({ block: "nearest" });
  if (option) input.setAttribute("aria-activedescendant", option.id);
  else input.removeAttribute("aria-activedescendant");
}

// `again`: what is known has changed, and not what is typed; then the same list stays as it is, with
// what is marked in it, or is just being clicked.
function fill(query, again) {
  const { found, near } = match(entries, query);
  const same = (entry, i) => entry.index === shown[i].index && entry.why === shown[i].why;
  if (again && found.length === shown.length && found.every(same)) return;
  shown = found;
  list.replaceChildren(
    ...found.map((entry, i) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${i}`;
      option.setAttribute("role", "option");
      option.dataset.index = entry.index;
      option.textContent = entry.title;
      if (entry.why) {
        const why = document.createElement("span");
        why.textContent = entry.why;
        option.append(" ", why);
      }
      return option;
    }),
  );
  const none = `Nothing matches “${query.trim()}”.${found.length ? " The nearest:" : ""}`;
  panel.querySelector("p").textContent = near ? none : "";
  const many = found.length === 1 ? "1 class" : `${found.length} classes`;
  said.textContent = near ? none : query ? many : "";
  mark(near ? -1 : query ? 0 : found.findIndex((entry) => entry.index === props.value));
}

const filter = (again) => fill(input.value === title() ? "" : input.value, again);

function place() {
  const box = input.getBoundingClientRect();
  const below = window.innerHeight - box.bottom - 12;
  const up = below < 180 && box.top > below;
  Object.assign(panel.style, {
    left: `${box.left}px`,
    width: `${box.width}px`,
    maxHeight: `${Math.min(320, up ? box.top - 12 : below)}px`,
    top: up ? "auto" : `${box.bottom + 4}px`,
    bottom: up ? `${window.innerHeight - box.top + 4}px` : "auto",
  });
}

function show() {
  if (open || input.disabled) return;
  open = true;
  known();
  panel.hidden = false;
  input.setAttribute("aria-expanded", "true");
  place();
  filter();
  if (input.value === title()) input.select(); // typing searches, instead of being added to a name
}

function close() {
  open = false;
  panel.hidden = true;
  said.textContent = "";
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
  input.value = title();
}

function choose(at) {
  const entry = shown[at];
  if (entry && entry.index !== props.value) {
    props.value = entry.index;
    trigger("input");
  }
  close();
}

input.addEventListener("click", () => show());
input.addEventListener("focus", () => known());
input.addEventListener("input", () => {
  if (open) filter();
  else show();
});
input.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const last = shown.length - 1;
  const page = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
  if (page && !open) show();
  else if (page && Math.abs(page) > 1) mark(Math.max(0, Math.min(last, active + page)));
  else if (page) mark(active < 0 ? (page > 0 ? 0 : last) : (active + page + last + 1) % (last + 1));
  else if (event.key === "Enter" && open && active >= 0) choose(active);
  else if (event.key === "Escape" && open) close();
  else if (event.key === "Tab" && open) choose(active);
  else return;
  if (event.key !== "Tab") event.preventDefault();
});
input.addEventListener("blur", () => open && choose(input.value === title() ? -1 : active));
list.addEventListener("mousedown", (event) => {
  event.preventDefault();
  const option = event.target.closest("[role=option]");
  if (option) choose([...list.children].indexOf(option));
});
window.addEventListener("scroll", (event) => open && !panel.contains(event.target) && place(), true);
window.addEventListener("resize", () => open && place());
watch(["value", "choices"], () => {
  entries = [];
  if (open) known();
  else {
    input.value = title();
    if (document.activeElement === input) input.select(); // what is typed replaces it, as before
  }
});
input.value = title();
