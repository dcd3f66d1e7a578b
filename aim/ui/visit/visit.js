// What was made in this visit: codes and settings, which the browser keeps; pictures are made of
// them when they come into sight.
const KEY = "aim-visit";
const MOST = 100; // pictures that are kept
const find = (name) => element.querySelector(".aim-" + name);
const [list, dialog, all, clear] = ["pictures", "large", "all", "clear"].map(find);
const large = dialog.querySelector("img");
const addresses = new Map(); // of pictures that were made, by their settings and codes
let visit = []; // newest first
let opened = null; // the one that is shown large

const same = (one) => JSON.stringify([one.parameters, one.codes]);
const known = (one) => one?.parameters && typeof one.codes === "string";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY) || "[]").filter(known);
  } catch {
    return visit; // the browser keeps nothing for us
  }
}

function store(pictures) {
  visit = pictures.slice(0, MOST);
  for (let most = MOST; most >= 1; most /= 2) {
    try {
      localStorage.setItem(KEY, JSON.stringify(visit.slice(0, most)));
      break;
    } catch {} // no room, or none for us: fewer
  }
  show();
}

function add(made) {
  const before = stored();
  const there = new Set(before.map(same));
  store([...made.filter((one) => !there.has(same(one))), ...before]);
}

// The address of a picture's image, made once; rejects in words.
function address(one) {
  const key = same(one);
  if (!addresses.has(key)) {
    const made = window.aim.made("png", [one]).then((file) => URL.createObjectURL(file.data));
    made.catch(() => addresses.delete(key));
    addresses.set(key, made);
  }
  return addresses.get(key);
}

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    address(target.one).then(
      (found) => (target.querySelector("img").src = found),
      (error) => {
        target.title = error.message;
        target.querySelector("img").remove();
        target.querySelector("span").prepend("Of an older model: ");
      },
    );
  }
});

function tile(one) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  Object.assign(button, { type: "button", one });
  const [image, caption] = [document.createElement("img"), document.createElement("span")];
  image.alt = "";
  caption.textContent = one.caption;
  button.append(image, caption);
  button.addEventListener("click", () => open(one));
  item.append(button);
  return item;
}

function show() {
  const tiles = new Map([...list.children].map((item) => [same(item.firstChild.one), item]));
  list.replaceChildren(...visit.map((one) => tiles.get(same(one)) || tile(one)));
  for (const item of list.children) {
    if (!tiles.has(same(item.firstChild.one))) sight.observe(item.firstChild);
  }
  find("empty").hidden = visit.length > 0;
  all.disabled = clear.disabled = !visit.length;
}

async function open(one) {
  opened = one;
  dialog.querySelector(".aim-caption").textContent = one.caption;
  const say = dialog.querySelector(".aim-saying");
  say.textContent = "";
  large.removeAttribute("src");
  dialog.querySelector(".aim-remove").hidden = !visit.some((other) => same(other) === same(one));
  for (const button of dialog.querySelectorAll("[data-kind], [data-to=explore]")) {
    button.disabled = false;
  }
  if (!dialog.open) dialog.showModal();
  try {
    large.src = await address(one);
  } catch (error) {
    say.textContent = error.message;
    for (const button of dialog.querySelectorAll("[data-kind], [data-to=explore]")) {
      button.disabled = true;
    }
  }
}

// Take a picture's settings over, and go on to a tab.
function go(to, one) {
  if (dialog.open) dialog.close();
  window.aim.to = to;
  if (to === "explore") trigger("submit", one);
  if (to === "inside") trigger("input", one);
  trigger("select", one.parameters);
}

dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const say = dialog.querySelector(".aim-saying");
  if (event.target === dialog || button?.matches(".aim-close")) dialog.close();
  else if (button?.dataset.kind) window.aim.save(button, [opened], say);
  else if (button?.dataset.to) go(button.dataset.to, opened);
  else if (button?.matches(".aim-link")) window.aim.copy(opened.link, say);
  else if (button?.matches(".aim-remove")) {
    store(stored().filter((one) => same(one) !== same(opened)));
    dialog.close();
  }
});
all.dataset.kind = "zip";
all.addEventListener("click", () => window.aim.save(all, visit, find("saying")));
clear.addEventListener("click", () => {
  if (window.confirm("Remove all pictures of this visit?")) store([]);
});
document.addEventListener("aim-made", ({ detail }) => add(detail));
document.addEventListener("aim-open", ({ detail }) => open(detail));
document.addEventListener("aim-go", ({ detail }) => go(detail.to, detail.one));
const begin = () => {
  visit = stored();
  show();
};
if (window.aim) begin();
else document.addEventListener("aim-ready", begin, { once: true });
