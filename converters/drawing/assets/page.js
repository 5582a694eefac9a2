// Filters, tabs, theme, keys of the whole page, and the address: #name shows that layer.

const search = $("#search"), failing = $("#failing"), keys = $("#keys"), theme = $("#theme");

search.addEventListener("input", () => { page.query = search.value.trim().toLowerCase(); page.tell("filtered"); });
failing?.addEventListener("click", () => {
  page.failing = !page.failing;
  failing.setAttribute("aria-pressed", page.failing);
  page.tell("filtered");
});
$("#help").addEventListener("click", () => keys.showModal());
$("#to-divergence")?.addEventListener("click", () => page.choose(page.entries.find((entry) => entry.result?.name === data.divergent) ?? page.ofRow(data.divergence), "cause"));

if (data.sets.length > 1) {
  const tabs = $(".tabs");
  tabs.hidden = false;
  const buttons = data.sets.map((set, i) => el("button", { type: "button", role: "tab", "aria-controls": "table", "aria-selected": `${i === 0}`, onclick: () => turn(i) }, `${set.title} ${set.entries.filter((entry) => entry.result).length}`));
  tabs.append(...buttons);
  const turn = (to) => {
    page.set = to;
    page.chosen = null;
    buttons.forEach((button, i) => button.setAttribute("aria-selected", i === to));
    page.tell("switched");
    page.tell("filtered");
    page.tell("chosen");
  };
}

// Light, dark: what the system says until the reader says otherwise
const dark = matchMedia("(prefers-color-scheme: dark)");
const kept = { get: () => { try { return localStorage.getItem("decant-theme"); } catch { return null; } }, set: (value) => { try { localStorage.setItem("decant-theme", value); } catch { /* private windows */ } } };
function paintTheme(value) {
  if (value) document.documentElement.dataset.theme = value;
  theme.textContent = (value ?? (dark.matches ? "dark" : "light")) === "dark" ? "Light" : "Dark";
  page.tell("themed");
}
theme.addEventListener("click", () => { const value = theme.textContent.toLowerCase(); kept.set(value); paintTheme(value); });
dark.addEventListener("change", () => paintTheme(kept.get()));
paintTheme(kept.get());

function jumpToFailing(by) {
  const shown = table.shown().filter((entry) => entry.result && !entry.result.ok);
  if (!shown.length) return;
  const after = (entry) => entry.index > (page.chosen?.index ?? -1), before = (entry) => entry.index < (page.chosen?.index ?? Infinity);
  page.choose(by > 0 ? shown.find(after) ?? shown[0] : shown.findLast(before) ?? shown.at(-1), "keys");
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  if (event.target.matches("input")) {
    if (event.key === "Escape") { search.value = ""; search.dispatchEvent(new Event("input")); search.blur(); }
    return;
  }
  const does = {
    "/": () => search.focus(),
    "f": () => failing?.click(),
    "n": () => jumpToFailing(1),
    "p": () => jumpToFailing(-1),
    "+": () => graph.zoom(1.4),
    "=": () => graph.zoom(1.4),
    "-": () => graph.zoom(1 / 1.4),
    "0": () => graph.fit(),
    "?": () => keys.showModal(),
    "Escape": () => page.chosen && page.choose(null),
  }[event.key];
  if (does) { event.preventDefault(); does(); }
});

// The losses of two solvers by step
if ($("#curves")) {
  const { a, b } = data.losses, all = [...a, ...b].filter((v) => typeof v === "number"), low = Math.min(...all), high = Math.max(...all);
  const point = (value, i) => (typeof value === "number" ? `${(100 * i / Math.max(a.length - 1, 1)).toFixed(2)} ${(4 + 92 * (1 - (value - low) / (high - low || 1))).toFixed(2)}` : null);
  const path = (values) => `M${values.map(point).filter(Boolean).join("L")}`;
  const curves = $("#curves");
  curves.setAttribute("viewBox", "0 0 100 100");
  curves.setAttribute("preserveAspectRatio", "none");
  curves.append(sv("path", { class: "b", d: path(b) }), sv("path", { class: "a", d: path(a) }));
}

page.parts.push({ chosen() {
  const name = page.chosen && (page.chosen.result?.name ?? data.rows[page.chosen.row]?.name);
  history.replaceState(null, "", name ? `#${encodeURIComponent(name)}` : "#");
} });
const asked = (() => { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } })();
const entry = asked && page.entries.find(({ row, result }) => result?.name === asked || data.rows[row]?.name === asked);
if (entry) page.choose(entry, "address");
document.documentElement.dataset.ready = "yes";
