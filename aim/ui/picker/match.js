// Which classes somebody means, the likeliest first. `choices` are [title, index]; `catalogue` has
// other names and kinds of ImageNet's classes.
const plain = (text) =>
  text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().replace(/\s+/g, " ").trim();
const words = (text) => text.split(/[^\p{L}\p{N}]+/u).filter(Boolean);
const begins = (text, start) => (" " + words(text).join(" ")).includes(" " + start);
const singular = (text) =>
  text
    .replace(/ies$/, "y")
    .replace(/(ss|sh|ch|x)es$/, "$1")
    .replace(/([^s])s$/, "$1");

function prepare(choices, catalogue) {
  const kinds = catalogue.kinds.map((names) => names.map(plain));
  return choices.map(([title, index]) => {
    const [synonyms, of] = catalogue.classes[title] || [[], []];
    return {
      title,
      index,
      name: plain(title.replace(/ \(\d+\)$/, "")),
      synonyms: synonyms.map((name) => [plain(name), name]),
      kinds: of.flatMap((kind) => kinds[kind].map((name, i) => [name, catalogue.kinds[kind][i]])),
    };
  });
}

// How well an entry fits, from 0, the best, and because of which other word; null if it does not.
function fit(entry, asked) {
  const synonym = (test) => entry.synonyms.find(([name]) => test(name))?.[1];
  const kind = (test) => entry.kinds.find(([name]) => test(name))?.[1];
  const equal = (name) => name === asked;
  const one = singular(asked);
  if (equal(entry.name) || equal(plain(entry.title)) || asked === String(entry.index)) return [0];
  if (synonym(equal)) return [1, synonym(equal)];
  if (kind((name) => name === asked || name === one)) {
    return [2, kind((name) => name === asked || name === one)];
  }
  if (entry.name.startsWith(asked)) return [3];
  const start = (name) => begins(name, asked);
  if (start(entry.name)) return [4];
  if (synonym(start)) return [5, synonym(start)];
  if (asked.length > 2 && kind(start)) return [6, kind(start)];
  if (entry.name.includes(asked)) return [7];
  const all = [entry.name, ...entry.synonyms.map(([n]) => n), ...entry.kinds.map(([n]) => n)];
  const each = words(asked);
  if (each.length > 1 && each.every((word) => all.some((name) => begins(name, word)))) return [8];
  return null;
}

const ALIKE = 0.3; // of what is told where nothing matches

function pairs(text) {
  const padded = ` ${text} `;
  return new Set([...padded].slice(1).map((letter, i) => padded[i] + letter));
}

function alike(a, b) {
  const [first, second] = [pairs(a), pairs(b)];
  return (2 * [...first].filter((pair) => second.has(pair)).length) / (first.size + second.size);
}

function match(entries, query) {
  const asked = plain(query);
  if (!asked) return { found: entries.map((entry) => ({ ...entry, why: "" })), near: false };
  const found = entries
    .map((entry) => [entry, fit(entry, asked)])
    .filter(([, how]) => how)
    .map(([entry, [rank, why]]) => ({ ...entry, rank, why: why || "" }))
    .sort((a, b) => a.rank - b.rank); // entries come by title
  if (found.length) return { found, near: false };
  const closeness = (entry) => {
    const names = [[entry.name, ""], ...entry.synonyms, ...entry.kinds];
    const best = names.map(([name, why]) => [alike(name, asked), why]).sort((a, b) => b[0] - a[0]);
    return best[0];
  };
  const near = entries
    .map((entry) => [entry, closeness(entry)])
    .filter(([, [how]]) => how > ALIKE)
    .sort((a, b) => b[1][0] - a[1][0])
    .slice(0, 5)
    .map(([entry, [, why]]) => ({ ...entry, why }));
  return { found: near, near: true };
}
