// The table: a row a result, in the net's order or by a column, filtered, one stop for Tab.

const table = (() => {
  const home = $("#table"), body = el("tbody"), scroll = $(".scroll");
  const order = { key: null, down: true };
  const lines = new Map();
  let columns = [];

  const by = {
    layer: (entry) => entry.index,
    error: (entry) => scalar(entry.result?.problem ? "Infinity" : entry.result?.rel),
    tolerance: (entry) => scalar(entry.result?.problem ? "Infinity" : entry.result?.ratio),
    cosine: (entry) => -scalar(entry.result?.cosine ?? 1),
    parameters: (entry) => data.rows[entry.row].parameters,
    macs: (entry) => data.rows[entry.row].macs,
  };
  const scalar = (value) => (value === undefined ? -1 : value === "NaN" ? Infinity : Number(value));
  const compared = [
    { title: "Layer", key: "layer" },
    { title: "Error", key: "error", width: "94px", number: true },
    { title: "Of tolerance", key: "tolerance", width: "102px", number: true },
    { title: "Cosine", key: "cosine", width: "82px", number: true, class: "cosine" },
    { title: "Values", width: "104px", class: "spark-column", hint: "Histograms, square-root scale: B filled, A as a line" },
  ];
  const plain = [
    { title: "Layer", key: "layer" },
    { title: "Output", width: "34%" },
    { title: "Parameters", key: "parameters", width: "96px", number: true },
    { title: "Multiply-adds", key: "macs", width: "116px", number: true },
  ];

  function heading(column) {
    const sorted = order.key === column.key && column.key ? (order.down ? "descending" : "ascending") : column.key ? "none" : null;
    const inside = column.key ? el("button", { type: "button", onclick: () => sort(column.key) }, column.title) : column.title;
    return el("th", { scope: "col", "aria-sort": sorted, class: [column.number && "number", column.class].filter(Boolean).join(" ") || null, title: column.hint }, inside);
  }
  function sort(key) {
    const wanted = key === "layer" ? false : true;
    order.down = order.key === key ? !order.down : wanted;
    order.key = key;
    fill();
  }
  function cell(entry, column) {
    const row = data.rows[entry.row], result = entry.result;
    if (column.title === "Layer") {
      const name = row?.name ?? result.layer, several = result && (!row || result.name !== name);
      const about = [row ? `${row.type} ${row.detail}`.trim() : result.layer_type, data.compared ? shape(result?.shape ?? row.shapes[0] ?? []) : null, several ? result.name : null].filter(Boolean).join(" · ");
      const flag = result && data.divergent === result.name && page.set === 0 ? el("span", { class: "flag" }, "first") : null;
      return el("td", { title: name }, el("span", { class: "name" }, name), flag, el("small", {}, about));
    }
    const none = { class: "number unmeasured" };
    if (column.title === "Output") return el("td", {}, row.shapes.map(shape).join(", "));
    if (column.key === "parameters") return el("td", { class: "number" }, row.parameters ? row.parameters.toLocaleString("en") : "");
    if (column.key === "macs") return el("td", { class: "number" }, row.macs ? row.macs.toLocaleString("en") : "");
    if (column.key === "error") {
      if (!result) return el("td", none, row.family === "data" ? "input" : "not compared");
      const words = `${result.ok ? "" : "≠ "}${result.problem ? "n/a" : error(result.rel)}`;
      return el("td", { class: "number" }, el("span", { class: `tag level-${result.level}${result.ok ? "" : " past"}` }, words));
    }
    if (column.key === "tolerance") return result ? el("td", { class: "number" }, result.problem ? "" : times(result.ratio)) : el("td", none);
    if (column.key === "cosine") return el("td", { class: "number cosine" }, result && !result.problem ? cosine(result.cosine) : "");
    const td = el("td", { class: "spark-column" });
    if (result?.preview) {
      td.preview = result.preview;
      drawn.observe(td);
    }
    return td;
  }
  // 1 - 2.3e-9 -> "1"; 0.99812 as it is; the layer's own page has all digits
  const cosine = (value) => (typeof value === "string" ? value : Math.abs(value - 1) < 5e-6 ? "1" : value.toFixed(5));
  // A sparkline is drawn when its row first comes near the list's window
  const drawn = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      drawn.unobserve(target);
      target.append(sv("svg", { class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" }, ...histogram(target.preview, 28)));
    }
  }, { root: scroll, rootMargin: "600px" });
  function line(entry) {
    const tr = el("tr", { tabindex: "-1", "aria-selected": "false" }, ...columns.map((column) => cell(entry, column)));
    tr.entry = entry;
    return tr;
  }

  function rebuild() {
    columns = data.compared ? compared : plain;
    lines.clear();
    for (const [i, entry] of page.entries.entries()) {
      entry.index = i;
      lines.set(entry, line(entry));
    }
    fill();
  }
  function fill() {
    const down = order.down ? -1 : 1;
    const entries = page.entries.filter((entry) => page.matches(entry));
    if (order.key) entries.sort((a, b) => (by[order.key](a) - by[order.key](b)) * down || a.index - b.index);
    body.replaceChildren(...entries.map((entry) => lines.get(entry)));
    const group = el("colgroup", {}, ...columns.map((column) => el("col", { style: column.width ? `width: ${column.width}` : null, class: column.class })));
    home.replaceChildren(group, el("thead", {}, el("tr", {}, ...columns.map(heading))), body);
    $(".empty").hidden = entries.length > 0;
    const measured = page.entries.filter((entry) => entry.result), failing = measured.filter((entry) => !entry.result.ok).length;
    const shown = entries.length === page.entries.length ? `${entries.length}` : `${entries.length} of ${page.entries.length}`;
    $(".count").textContent = data.compared ? `${shown} shown, ${failing} failing` : `${shown} layers`;
    stop();
    const chosen = lines.get(page.chosen);
    if (chosen?.isConnected) reveal(chosen);
    else scroll.scrollTop = 0;
  }
  // The one row that Tab stops at: the chosen one, else the first
  function stop() {
    for (const tr of $$('tr[tabindex="0"]', body)) tr.setAttribute("tabindex", "-1");
    const chosen = lines.get(page.chosen);
    (chosen?.isConnected ? chosen : body.firstElementChild)?.setAttribute("tabindex", "0");
  }
  function mark(from) {
    for (const tr of $$('tr[aria-selected="true"]', body)) tr.setAttribute("aria-selected", "false");
    const tr = lines.get(page.chosen);
    if (!tr) return;
    tr.setAttribute("aria-selected", "true");
    stop();
    if (tr.isConnected && from !== "table") reveal(tr);
  }
  // Into view, within the list alone, below its head
  function reveal(tr) {
    const inside = scroll.getBoundingClientRect(), own = tr.getBoundingClientRect(), top = $("thead", home).getBoundingClientRect().bottom;
    if (own.top < top) scroll.scrollTop -= top - own.top;
    else if (own.bottom > inside.bottom) scroll.scrollTop += own.bottom - inside.bottom;
  }
  body.addEventListener("click", (event) => {
    const tr = event.target.closest("tr");
    if (tr) page.choose(tr.entry, "table");
  });
  body.addEventListener("keydown", (event) => {
    const tr = event.target.closest("tr"), all = [...body.children], i = all.indexOf(tr);
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, PageDown: i + 10, PageUp: i - 10, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      page.choose(tr.entry, "table");
      $(".side").focus({ preventScroll: true });
    } else if (to !== undefined) {
      const next = all[Math.min(Math.max(to, 0), all.length - 1)];
      page.choose(next.entry, "table");
      next.focus({ preventScroll: true });
      reveal(next);
    } else return;
    event.preventDefault();
  });
  rebuild();
  return {
    chosen: mark,
    filtered: fill,
    switched: rebuild,
    shown: () => [...body.children].map((tr) => tr.entry),
  };
})();
page.parts.push(table);
