// One layer: what it is, how far its blob is apart, where, histograms, the error map, values around the worst one.

// Two histograms over the same range, square-root scale: B as an area, A as a line; 100 wide
function histogram(preview, height) {
  const count = preview.histogram_a.length, top = Math.sqrt(Math.max(...preview.histogram_a, ...preview.histogram_b, 1));
  const y = (value) => (height - 1 - (height - 3) * Math.sqrt(value) / top).toFixed(1);
  const steps = (values) => values.map((value, i) => `V${y(value)}H${(100 * (i + 1) / count).toFixed(1)}`).join("");
  const start = `M0 ${height - 1}`;
  return [
    sv("path", { class: "b", d: `${start}${steps(preview.histogram_b)}V${height - 1}z` }),
    sv("path", { class: "a", d: `${start}${steps(preview.histogram_a)}V${height - 1}` }),
  ];
}

const details = (() => {
  const side = $(".side");

  const facts = (pairs) => el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== null && value !== "" && value !== undefined)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

  function idle() {
    side.classList.add("idle");
    const hint = data.compared
      ? "Choose a layer, in the graph, in the table or by its bar above: its error map, values and shapes stand here."
      : "Choose a layer, in the graph or in the table: its module, shapes and parameters stand here.";
    side.replaceChildren(el("p", { class: "muted" }, hint), el("p", { class: "muted" }, "All of it works by keys: ", el("kbd", {}, "?"), " lists them."));
  }

  function links(blobs) {
    const item = (blob) => {
      const row = data.rows.findIndex((r) => r.tops.includes(blob));
      return row < 0 ? blob : el("button", { type: "button", onclick: () => page.choose(page.ofRow(row), "details") }, blob);
    };
    return el("span", { class: "links" }, ...blobs.flatMap((blob, i) => (i ? [", ", item(blob)] : [item(blob)])));
  }
  function layer(row) {
    const readers = [...new Set(data.rows.flatMap((r) => (r.bottoms.some((b) => row.tops.includes(b)) ? r.tops.slice(0, 1) : [])))];
    return [
      el("h3", {}, "Layer"),
      facts([
        ["type", `${row.type} ${row.detail}`.trim()],
        ["at", row.place],
        ["output", row.shapes.map(shape).join(", ")],
        ["parameters", row.parameters ? `${row.parameters.toLocaleString("en")}: ${row.params.map(shape).join(", ")}` : null],
        ["multiply-adds", row.macs ? row.macs.toLocaleString("en") : null],
        ["reads", row.bottoms.length ? links(row.bottoms) : null],
        ["makes", row.tops.length ? links(row.tops) : null],
        ["read by", readers.length ? links(readers) : null],
      ]),
      row.source ? el("h3", {}, "As a PyTorch module") : null,
      row.source ? el("code", {}, row.source) : null,
    ];
  }

  function verdict(result) {
    const words = result.problem || `${result.ok ? "Agrees" : "Differs"}: ${error(result.rel)} relative, ${times(result.ratio)} of the tolerance`;
    return el("p", { class: `said level-${result.level}` }, words);
  }
  function numbers(result) {
    const spots = result.index.length ? ` at [${result.index.join(", ")}]` : "";
    const kinds = [["NaN", result.nan_a, result.nan_b], ["infinite", result.inf_a, result.inf_b]].filter(([, a, b]) => a || b);
    const measured = [
      ["largest", `${error(result.worst_abs)}${spots}`],
      ["there", `A ${number(result.value_a, 8)}, B ${number(result.value_b, 8)}`],
      ["mean", error(result.mean)],
      ...result.quantiles.map(([q, value]) => [`${Number((100 * q).toPrecision(5))} % below`, error(value)]),
      ["cosine", number(result.cosine, 9)],
      ["would pass", result.ok ? null : `atol ${error(result.worst_abs)} alone, or rtol ${error(result.needs_rtol)} alone`],
      ["max|B|", number(result.peak)],
      ...result.top.map(([k, share]) => [`top ${k}`, `the same in ${Number((100 * share).toPrecision(4))} % of rows`]),
    ];
    return [
      el("h3", {}, "Error"),
      facts([
        ...(result.problem ? [] : measured),
        ["tolerance", `${number(result.tolerance.atol, 3)} + ${number(result.tolerance.rtol, 3)} · max|B|`],
        ...kinds.map(([what, a, b]) => [what, `${a} in A, ${b} in B`]),
        ["shape", `${shape(result.shape)} ${result.dtype}`],
      ]),
    ];
  }
  function values(preview) {
    if (!preview.values.length) return [];
    const gap = ([a, b]) => (typeof a === "number" && typeof b === "number" ? Math.abs(a - b) : NaN);
    const worst = Math.max(...preview.values.map(gap).filter((v) => v === v), -1);
    const lines = preview.values.map((pair, i) => el("tr", { class: worst > 0 && gap(pair) === worst ? "worst" : null },
      el("td", {}, (preview.start + i).toLocaleString("en")), el("td", {}, number(pair[0], 8)), el("td", {}, number(pair[1], 8)), el("td", {}, Number.isNaN(gap(pair)) ? "" : error(gap(pair)))));
    return [el("h3", {}, "Values around the largest error"), el("table", { class: "values" }, el("tr", {}, ...["flat index", "A", "B", "|A − B|"].map((word) => el("th", { scope: "col" }, word))), ...lines)];
  }
  // The largest error of each tile over the last two axes: paper is none, ink is the largest
  function errorMap(preview, result) {
    const grid = preview.error_map;
    if (!grid.length) return [];
    const top = Math.max(...grid.flat().filter((v) => typeof v === "number"), 0);
    const axes = result.shape.slice(-2).join(" × ");
    const colour = (value) => (typeof value === "string" ? "var(--level-8)" : `color-mix(in oklab, var(--map) ${top ? Math.round(100 * value / top) : 0}%, var(--surface))`);
    const wide = `max-width: ${Math.min(280, 34 * grid[0].length)}px`;
    const cells = grid.flatMap((line, y) => line.map((value, x) => el("i", { style: `background: ${colour(value)}`, title: `tile ${y}, ${x}: ${error(value)}` })));
    return [
      el("h3", {}, "Error map"),
      el("div", { class: "map", role: "img", "aria-label": `Largest error of ${grid.length} by ${grid[0].length} tiles, up to ${error(top)}`, style: `grid-template-columns: repeat(${grid[0].length}, 1fr); ${wide}` }, ...cells),
      el("div", { class: "ramp", style: `background: linear-gradient(to right in oklab, var(--surface), var(--map)); ${wide}` }),
      el("div", { class: "axis", style: wide }, el("span", {}, "0"), el("span", {}, error(top))),
      el("p", { class: "key" }, `The largest |A − B| of each tile of the last two axes, ${axes}, over all others.`),
    ];
  }
  function histograms(preview) {
    return [
      el("h3", {}, "Values"),
      sv("svg", { class: "histogram", viewBox: "0 0 100 92", preserveAspectRatio: "none", role: "img", "aria-label": "Histograms of A and B" }, ...histogram(preview, 92)),
      el("div", { class: "axis" }, el("span", {}, number(preview.low, 4)), el("span", {}, number(preview.high, 4))),
      el("p", { class: "key" }, `Line: A, ${data.sides[0]}. Filled: B, ${data.sides[1]}. Square-root scale.`),
    ];
  }

  function step(by) {
    const shown = table.shown(), i = shown.indexOf(page.chosen);
    const next = shown[i + by];
    if (next) page.choose(next, "details");
  }
  // What stood here had the focus: the same button of what stands here now takes it, or the pane; once closed, the table
  function show() {
    const focused = side.contains(document.activeElement) ? document.activeElement : null, label = focused?.getAttribute("aria-label");
    page.chosen ? fill() : idle();
    if (!focused) return;
    const heir = page.chosen ? (label && focused !== side ? $(`button[aria-label="${label}"]`, side) : side) : $('#table tr[tabindex="0"]');
    heir?.focus({ preventScroll: true });
  }
  function fill() {
    const entry = page.chosen;
    const row = data.rows[entry.row], result = entry.result;
    side.classList.remove("idle");
    const title = el("div", { class: "title" },
      el("h2", { class: "name" }, row?.name ?? result.name),
      el("span", { class: "steps" },
        el("button", { type: "button", "aria-label": "Previous", onclick: () => step(-1) }, "↑"),
        el("button", { type: "button", "aria-label": "Next", onclick: () => step(1) }, "↓"),
        el("button", { type: "button", "aria-label": "Close", onclick: () => page.choose(null) }, "×")));
    const blob = result && result.name !== row?.name ? el("p", { class: "muted" }, `${data.sets[page.set].noun} ${result.name}`) : null;
    const preview = result?.preview;
    const alone = row?.tops.some((top) => data.unmatched?.includes(top)) ? "Only one of the two sides shows what this layer makes." : "Nothing of this layer was compared.";
    const unmeasured = data.compared && !result ? [el("p", { class: "muted" }, row.family === "data" ? "Both sides are fed the same." : alone)] : [];
    side.replaceChildren(...[
      title, blob, ...unmeasured,
      result ? verdict(result) : null,
      ...(preview ? [...errorMap(preview, result), ...histograms(preview)] : []),
      ...(result ? numbers(result) : []),
      ...(preview ? values(preview) : []),
      ...(row ? layer(row) : []),
    ].filter(Boolean));
    side.scrollTop = 0;
  }
  idle();
  return { chosen: show, switched: show };
})();
page.parts.push(details);
