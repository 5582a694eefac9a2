// The graph: pan, zoom, colours by error, a map of the whole, and walking along its lines by keys.

const graph = (() => {
  const pane = $(".stage"), svg = $(".net", pane), world = $(".world", svg), map = $(".minimap", pane);
  const rows = $$(".row", svg), edges = $$(".edge", svg), holders = $$(".box", svg);
  const at = rows.map(() => null); // by row: {box, x, y, w, h}
  for (const [i, box] of data.boxes.entries()) {
    let y = box.y;
    for (const [k, row] of box.rows.entries()) {
      const h = k ? data.tail : data.head;
      at[row] = { box: i, x: box.x, y, w: data.width, h };
      y += h;
    }
  }
  const node = new Map(rows.map((g) => [Number(g.dataset.layer), g]));
  const view = { x: 0, y: 0, k: 1 };
  const range = [0.02, 4];
  let waiting = 0, picture = null, stopsAt = 0;

  // Moving
  function apply() {
    waiting = 0;
    world.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.k})`);
    svg.classList.toggle("far", view.k < 0.4);
    svg.classList.toggle("tiny", view.k < 0.1);
    leaveOut();
    drawMap();
  }
  // Boxes far outside the window are not laid out, save the one where Tab stops
  function leaveOut() {
    const near = 300 / view.k, { clientWidth, clientHeight } = pane;
    const [left, top] = [-view.x / view.k - near, -view.y / view.k - near];
    const [right, bottom] = [left + clientWidth / view.k + 2 * near, top + clientHeight / view.k + 2 * near];
    for (const [i, box] of data.boxes.entries()) {
      const inside = box.x < right && box.x + data.width > left && box.y < bottom && box.y + data.head + data.tail * box.rows.length > top;
      if (holders[i].classList.contains("out") === (inside || i === stopsAt)) holders[i].classList.toggle("out");
    }
  }
  function move(x, y, k = view.k) {
    const { width, height } = pane.getBoundingClientRect();
    view.k = Math.min(Math.max(k, range[0]), range[1]);
    view.x = Math.min(Math.max(x, 60 - data.size[0] * view.k), width - 60);
    view.y = Math.min(Math.max(y, 60 - data.size[1] * view.k), height - 60);
    waiting ||= requestAnimationFrame(apply);
  }
  function zoom(factor, x, y) {
    const k = Math.min(Math.max(view.k * factor, range[0]), range[1]);
    move(x - (x - view.x) * (k / view.k), y - (y - view.y) * (k / view.k), k);
  }
  function zoomMiddle(factor) {
    const { width, height } = pane.getBoundingClientRect();
    zoom(factor, width / 2, height / 2);
  }
  function fit() {
    const { width, height } = pane.getBoundingClientRect();
    const k = Math.min((width - 48) / data.size[0], (height - 48) / data.size[1], 1);
    move((width - data.size[0] * k) / 2, (height - data.size[1] * k) / 2, k);
  }
  // The whole net where it can be read so, else its beginning
  function start() {
    const { width, height } = pane.getBoundingClientRect();
    const first = data.boxes[0];
    const k = Math.min((width - 48) / data.size[0], 1);
    if (k * Math.min(1, (height - 48) / (data.size[1] * k)) >= 0.5) return fit();
    const legible = Math.max(k, 0.75);
    move(k >= legible ? (width - data.size[0] * k) / 2 : width / 2 - (first.x + data.width / 2) * legible, 24, legible);
  }
  function show(row) {
    const { width, height } = pane.getBoundingClientRect(), place = at[row];
    const k = view.k < 0.4 ? 0.8 : view.k;
    const [x, y] = [place.x * view.k + view.x, place.y * view.k + view.y];
    const inside = k === view.k && x > 10 && y > 10 && x + place.w * k < width - 40 && y + place.h * k < height - 60;
    if (!inside) move(width / 2 - (place.x + place.w / 2) * k, height / 2 - (place.y + place.h / 2) * k, k);
  }

  // Pointers: one drags, two pinch; a press that does not move chooses
  const fingers = new Map();
  let travelled = 0;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    travelled = 0;
  });
  svg.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    travelled += Math.hypot(dx, dy);
    if (travelled < 4) return;
    svg.setPointerCapture(event.pointerId);
    svg.classList.add("moving");
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      const box = pane.getBoundingClientRect();
      zoom(distance([event.clientX, event.clientY]) / distance(before), (event.clientX + other[0]) / 2 - box.left, (event.clientY + other[1]) / 2 - box.top);
    } else {
      move(view.x + dx, view.y + dy);
    }
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    svg.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      svg.classList.remove("moving");
    });
  }
  svg.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row && travelled < 4) page.choose(page.ofRow(Number(row.dataset.layer)), "graph");
  });
  svg.addEventListener("wheel", (event) => {
    const box = pane.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-event.deltaY / (event.deltaMode ? 8 : 240)), event.clientX - box.left, event.clientY - box.top);
      event.preventDefault();
      return;
    }
    const before = { ...view }, step = event.deltaMode ? 30 : 1;
    move(view.x - (event.shiftKey ? event.deltaY : event.deltaX) * step, view.y - (event.shiftKey ? 0 : event.deltaY) * step);
    if (before.x !== view.x || before.y !== view.y) event.preventDefault();
  }, { passive: false });
  $(".zoom").addEventListener("click", (event) => {
    const what = event.target.dataset?.zoom;
    if (what) ({ in: () => zoomMiddle(1.4), out: () => zoomMiddle(1 / 1.4), fit })[what]();
  });

  // Keys: one stop for Tab; arrows walk
  function neighbour(row, key) {
    const { box } = at[row], inner = data.boxes[box].rows, place = inner.indexOf(row);
    if (key === "ArrowDown" && place + 1 < inner.length) return inner[place + 1];
    if (key === "ArrowUp" && place) return inner[place - 1];
    const middle = data.boxes[box].x;
    const nearest = (boxes, last) => {
      const found = boxes.sort((a, b) => Math.abs(data.boxes[a].x - middle) - Math.abs(data.boxes[b].x - middle))[0];
      return found === undefined ? null : data.boxes[found].rows.at(last ? -1 : 0);
    };
    if (key === "ArrowDown") return nearest(data.edges.filter(([a]) => a === box).map(([, b]) => b), false);
    if (key === "ArrowUp") return nearest(data.edges.filter(([, b]) => b === box).map(([a]) => a), true);
    const side = key === "ArrowLeft" ? -1 : 1, own = at[row];
    return nearest([...data.boxes.keys()].filter((b) => (data.boxes[b].x - middle) * side > 0 && Math.abs(data.boxes[b].y - own.y) < 90), false);
  }
  function focus(row) {
    for (const g of $$('.row[tabindex="0"]', svg)) g.setAttribute("tabindex", "-1");
    node.get(row).setAttribute("tabindex", "0");
    stopsAt = at[row].box;
    holders[stopsAt].classList.remove("out");
  }
  svg.addEventListener("keydown", (event) => {
    const row = Number(event.target.closest?.(".row")?.dataset.layer);
    if (Number.isNaN(row)) return;
    if (event.key === "Enter" || event.key === " ") {
      page.choose(page.ofRow(row), "graph");
      $(".side").focus({ preventScroll: true });
      event.preventDefault();
    } else if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      event.stopPropagation();
      const next = neighbour(row, event.key);
      if (next === null || next === undefined) return;
      focus(next);
      show(next);
      node.get(next).focus({ preventScroll: true });
    }
  });

  // Colours
  function paint() {
    picture = null;
    for (const [row, g] of node) {
      const entry = page.ofRow(row), result = entry.result;
      const shown = page.byRow()[row].some((e) => page.matches(e));
      const classes = g.getAttribute("class").split(" ").filter((name) => !/^(level-|none$|dim$)/.test(name));
      if (data.compared) classes.push(result ? `level-${result.level}` : "none");
      if (!shown && (page.query || page.failing)) classes.push("dim");
      g.setAttribute("class", classes.join(" "));
      const about = data.rows[row];
      let words = `${about.name}, ${about.type}`;
      if (data.compared) {
        $(".note", g).textContent = result ? `${result.ok ? "" : "≠ "}${result.problem ? "n/a" : error(result.rel)}` : "";
        words += result ? `, ${result.ok ? "agrees" : "differs"}, error ${error(result.rel)}` : ", not compared";
      }
      g.setAttribute("aria-label", words);
    }
    drawMap();
  }
  function mark() {
    const row = page.chosen?.row ?? -1, box = at[row]?.box;
    for (const [i, g] of node) g.classList.toggle("selected", i === row);
    for (const line of edges) line.classList.toggle("near", box !== undefined && [line.dataset.from, line.dataset.to].includes(String(box)));
  }

  // The map: every box as a mark, and what the pane shows
  function mapSize() {
    const h = Math.min(pane.clientHeight * 0.45, 260), aspect = data.size[0] / Math.max(data.size[1], 1);
    const w = Math.min(Math.max(h * aspect, 26), Math.min(160, pane.clientWidth * 0.35));
    return [w, Math.min(h, Math.max(w / aspect, 26))];
  }
  function drawMap() {
    map.hidden = data.size[0] * view.k <= pane.clientWidth && data.size[1] * view.k <= pane.clientHeight;
    const [w, h] = mapSize(), scale = window.devicePixelRatio || 1;
    const [sx, sy] = [w / data.size[0], h / data.size[1]];
    if (map.width !== Math.round(w * scale) || map.height !== Math.round(h * scale)) {
      [map.width, map.height] = [Math.round(w * scale), Math.round(h * scale)];
      map.style.width = `${w}px`;
      map.style.height = `${h}px`;
      picture = null;
    }
    if (!picture) {
      picture = document.createElement("canvas");
      [picture.width, picture.height] = [map.width, map.height];
      const ink = picture.getContext("2d");
      ink.scale(scale, scale);
      const styles = getComputedStyle(document.documentElement), colours = new Map();
      const colour = (name) => colours.get(name) ?? colours.set(name, styles.getPropertyValue(name)).get(name);
      for (const [row, place] of at.entries()) {
        const result = data.compared ? page.ofRow(row).result : null;
        ink.fillStyle = colour(data.compared ? (result ? `--level-${result.level}` : "--line") : `--${data.rows[row].family}`);
        ink.globalAlpha = node.get(row).classList.contains("dim") ? 0.15 : 1;
        ink.fillRect(place.x * sx, place.y * sy, Math.max(place.w * sx, 1.5), Math.max(place.h * sy, result && !result.ok ? 2.5 : 0.8));
      }
    }
    const ink = map.getContext("2d");
    ink.setTransform(1, 0, 0, 1, 0, 0);
    ink.clearRect(0, 0, map.width, map.height);
    ink.drawImage(picture, 0, 0);
    ink.scale(scale, scale);
    const { clientWidth, clientHeight } = pane;
    ink.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    ink.lineWidth = 1.25;
    const [x, y] = [Math.max(-view.x / view.k * sx, 0.5), Math.max(-view.y / view.k * sy, 0.5)];
    ink.strokeRect(x, y, Math.min(clientWidth / view.k * sx, w - x - 0.5), Math.min(clientHeight / view.k * sy, h - y - 0.5));
  }
  function jump(event) {
    if (!event.buttons && event.type !== "pointerdown") return;
    const box = map.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width * data.size[0], (event.clientY - box.top) / box.height * data.size[1]];
    move(pane.clientWidth / 2 - x * view.k, pane.clientHeight / 2 - y * view.k);
  }
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); jump(event); });
  map.addEventListener("pointermove", jump);

  for (const g of rows) {
    g.setAttribute("tabindex", "-1");
    g.setAttribute("role", "button");
  }
  if (rows.length) rows[0].setAttribute("tabindex", "0");
  svg.removeAttribute("role");
  if (data.divergence >= 0) node.get(data.divergence).classList.add("diverges");
  if (data.boxes.length) start();
  leaveOut();
  paint();
  new ResizeObserver(() => move(view.x, view.y)).observe(pane);
  return {
    filtered: paint,
    themed() { picture = null; drawMap(); },
    zoom: zoomMiddle,
    fit,
    chosen(from) {
      mark();
      const row = page.chosen?.row ?? -1;
      if (row < 0) return;
      focus(row);
      if (from !== "graph") show(row);
    },
  };
})();
page.parts.push(graph);
