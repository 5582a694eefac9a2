// The errors by depth: a bar a blob in the net's order, on a logarithmic scale, with the tolerance as a dashed line.

if ($("#profile")) {
  const svg = $("#profile"), TOP = 6, FOOT = 16, LEFT = 42;
  let bars = [];

  const draw = () => {
    const measured = page.entries.filter((entry) => entry.result);
    const width = svg.clientWidth, height = svg.clientHeight, inner = height - TOP - FOOT;
    const finite = measured.flatMap(({ result }) => [result.rel, result.allowed]).filter((v) => typeof v === "number" && v > 0);
    const low = Math.floor(Math.log10(Math.min(...finite, 1e-6))), high = Math.ceil(Math.log10(Math.max(...finite, 1e-5)));
    const y = (value) => TOP + inner * (1 - (Math.log10(value) - low) / (high - low));
    const step = (width - LEFT) / Math.max(measured.length, 1);
    const every = Math.ceil((high - low) / 4);
    const parts = [];
    for (let power = low; power <= high; power += every) {
      const line = Math.round(y(10 ** power)) + 0.5;
      parts.push(sv("path", { class: "grid", d: `M${LEFT} ${line}H${width}` }), sv("text", { x: LEFT - 6, y: line + 3.5, "text-anchor": "end" }, `1e${power}`));
    }
    let limit = "";
    bars = measured.map((entry, i) => {
      const { result } = entry, x = LEFT + i * step;
      const top = result.problem || typeof result.rel === "string" ? TOP : result.rel > 0 ? Math.min(y(result.rel), TOP + inner - 2) : TOP + inner - 1;
      if (typeof result.allowed === "number" && result.allowed > 0) limit += `${limit ? "L" : "M"}${x} ${y(result.allowed)}H${x + step}`;
      const bar = sv("rect", { x, y: top, width: Math.max(step - (step > 6 ? 2 : step > 3 ? 0.75 : 0), 0.75), height: TOP + inner - top, class: `bar level-${result.level}` });
      bar.append(sv("title", {}, `${result.name}: ${result.problem || error(result.rel)}, ${times(result.ratio)} of the tolerance`));
      bar.entry = entry;
      return bar;
    });
    parts.push(...bars, sv("path", { class: "under", d: limit }), sv("path", { class: "limit", d: limit }), sv("text", { x: LEFT, y: height - 3 }, `first ${data.sets[page.set].noun}`), sv("text", { x: width, y: height - 3, "text-anchor": "end" }, `last ${data.sets[page.set].noun}`));
    parts.push(sv("text", { x: (LEFT + width) / 2, y: height - 3, "text-anchor": "middle" }, "relative error by depth; dashed: the tolerance"));
    svg.classList.toggle("wide", step > 4);
    svg.replaceChildren(...parts);
    const worst = measured.filter(({ result }) => !result.ok).length;
    svg.setAttribute("aria-label", `Relative error of ${measured.length} ${data.sets[page.set].title.toLowerCase()} by depth, ${worst} past the tolerance`);
    mark();
  };
  const mark = () => {
    for (const bar of bars) {
      bar.classList.toggle("selected", bar.entry === page.chosen);
      bar.classList.toggle("dim", !page.matches(bar.entry));
    }
  };
  svg.addEventListener("click", (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left - LEFT;
    const bar = bars[Math.floor(x / ((svg.clientWidth - LEFT) / bars.length))];
    if (bar) page.choose(bar.entry, "profile");
  });
  new ResizeObserver(draw).observe(svg);
  draw();
  page.parts.push({ chosen: mark, filtered: mark, switched: draw });
}
