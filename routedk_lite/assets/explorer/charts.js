// The charts. Each function fills an <svg> that has been in the page from the start.

const SHAPES = [
  (x, y) => g("circle", { cx: x, cy: y, r: 3.6 }),
  (x, y) => g("rect", { x: x - 3.2, y: y - 3.2, width: 6.4, height: 6.4 }),
  (x, y) => g("path", { d: `M${x} ${y - 4.2}l4.2 7.6h-8.4z` }),
  (x, y) => g("path", { d: `M${x} ${y - 4.6}l4.6 4.6l-4.6 4.6l-4.6 -4.6z` }),
];

/** α over the layers, a line per expert; `own` is drawn faint where it differs. */
function drawLines(svg, experts, layers, alpha, own) {
  const [left, right, top, bottom] = [30, 74, 10, 188];
  const width = 330 - left - right;
  const x = (l) => left + (layers.length > 1 ? (l / (layers.length - 1)) * width : width / 2);
  const y = (a) => bottom - a * (bottom - top);
  const parts = [0, 0.5, 1].flatMap((a) => [
    g("line", { x1: left, x2: left + width, y1: y(a), y2: y(a), stroke: "var(--line)" }),
    g("text", { x: left - 6, y: y(a) + 4, "text-anchor": "end", class: "soft" }, a === 0.5 ? "½" : String(a)),
  ]);
  const step = Math.ceil(layers.length / 8);
  layers.forEach((layer, l) => {
    if (l % step === 0) parts.push(g("text", { x: x(l), y: bottom + 16, "text-anchor": "middle", class: "soft" }, String(layer)));
  });
  parts.push(g("text", { x: left + width / 2, y: bottom + 31, "text-anchor": "middle", class: "soft" }, "layer"));
  const path = (rows, i) => rows.map((row, l) => `${l ? "L" : "M"}${x(l).toFixed(1)} ${y(row[i]).toFixed(1)}`).join("");
  const ends = experts.map((name, i) => ({ name, i, y: y(alpha[alpha.length - 1][i]) })).sort((a, b) => a.y - b.y);
  ends.forEach((end, k) => { if (k) end.y = Math.max(end.y, ends[k - 1].y + 14); });
  ends.forEach((end, k) => { end.y = Math.min(end.y, bottom + 4 - 14 * (ends.length - 1 - k)); });
  experts.forEach((name, i) => {
    const look = { fill: "none", stroke: `var(--e${i % 4})`, "stroke-linejoin": "round" };
    if (own) parts.push(g("path", { d: path(own, i), ...look, "stroke-width": 1.2, "stroke-dasharray": "2 4" }));
    parts.push(g("path", { d: path(alpha, i), ...look, "stroke-width": 2 }));
    const dots = g("g", { fill: `var(--e${i % 4})` }, alpha.map((row, l) => SHAPES[i % 4](x(l), y(row[i]))));
    parts.push(dots);
  });
  ends.forEach((end) => {
    parts.push(g("g", { fill: `var(--e${end.i % 4})` }, SHAPES[end.i % 4](left + width + 12, end.y)));
    parts.push(g("text", { x: left + width + 20, y: end.y + 4 }, end.name));
  });
  svg.replaceChildren(...parts);
}

/** Ends of an axis that hold all values, and a few round numbers between them. */
function axis(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = Math.max((high - low) * 0.08, 0.004);
  const [from, to] = [Math.max(0, low - pad), Math.min(1, high + pad)];
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((s) => (to - from) / s <= 5) || 0.5;
  const ticks = [];
  for (let k = Math.ceil(from / step); k * step <= to; k += 1) ticks.push(k * step);
  return { from, to, ticks, digits: step < 0.01 ? 3 : 2 };
}

/** All test sessions by the mean weights of two experts. Returns how to move the mark of the current one. */
function drawCloud(svg, data, choose) {
  const [a, b] = [data.experts.length - 2, data.experts.length - 1];
  const [left, right, top, bottom] = [56, 320, 12, 218];
  const values = (i) => data.cloud.map((row) => row[1 + i] / 10000);
  const [across, up] = [axis(values(a)), axis(values(b))];
  const x = (v) => left + ((v - across.from) / (across.to - across.from)) * (right - left);
  const y = (v) => bottom - ((v - up.from) / (up.to - up.from)) * (bottom - top);
  const parts = [
    ...across.ticks.map((v) => g("text", { x: x(v), y: bottom + 15, "text-anchor": "middle", class: "soft" }, v.toFixed(across.digits))),
    ...up.ticks.map((v) => g("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end", class: "soft" }, v.toFixed(up.digits))),
    g("path", { d: `M${left} ${top}V${bottom}H${right}`, fill: "none", stroke: "var(--edge)" }),
    g("text", { x: (left + right) / 2, y: bottom + 31, "text-anchor": "middle" }, `mean α of ${data.experts[a]}`),
    g("text", { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `mean α of ${data.experts[b]}`),
  ];
  const at = new Map(data.cloud.map((row) => [row[0], [x(row[1 + a] / 10000), y(row[1 + b] / 10000), row[row.length - 1]]]));
  const shown = new Set(data.sessions.map((s) => s.id));
  for (const [id, [px, py]] of at) {
    if (!shown.has(id)) parts.push(g("circle", { cx: px, cy: py, r: 2, fill: "var(--edge)", opacity: 0.55 }));
  }
  const order = data.sessions.map((s, i) => i).sort((i, j) => at.get(data.sessions[i].id)[0] - at.get(data.sessions[j].id)[0]);
  const nodes = order.map((i) => {
    const session = data.sessions[i];
    const [px, py, verdict] = at.get(session.id);
    const name = `session ${session.id}, ${session.titles.length} products, dynamic ${verdict}`;
    return g("g", { class: "rdkx-spot", role: "radio", "aria-label": name, tabindex: -1 },
      g("circle", { class: "rdkx-ring", cx: px, cy: py, r: 9 }), ...sign(verdict, px, py, 4.2));
  });
  const group = g("g", { role: "radiogroup", "aria-label": "sessions by their mean weights" }, nodes);
  const trail = g("path", { fill: "none", stroke: "var(--accent)", "stroke-width": 1.6, "stroke-dasharray": "4 3" });
  const here = g("path", { fill: "none", stroke: "var(--accent)", "stroke-width": 2.2 });
  svg.replaceChildren(...parts, group, trail, here);
  spots(nodes, (k) => { choose(order[k]); nodes[k].focus(); });
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const [cx, cy] = [((event.clientX - box.left) / box.width) * 330, ((event.clientY - box.top) / box.height) * 256];
    const away = order.map((i) => { const p = at.get(data.sessions[i].id); return Math.hypot(p[0] - cx, p[1] - cy); });
    choose(order[away.indexOf(Math.min(...away))]);
  });
  return (session, mean) => {
    order.forEach((i, k) => {
      const chosen = data.sessions[i] === session;
      nodes[k].setAttribute("aria-checked", String(chosen));
      nodes[k].setAttribute("tabindex", chosen ? 0 : -1);
    });
    const [px, py] = at.get(session.id);
    const inside = (v, low, high) => Math.min(Math.max(v, low), high);
    const [mx, my] = [inside(x(mean[a]), left, right), inside(y(mean[b]), top, bottom)];
    const moved = Math.hypot(mx - px, my - py) > 3;
    trail.setAttribute("d", moved ? `M${px} ${py}L${mx} ${my}` : "");
    here.setAttribute("d", moved ? `M${mx - 6} ${my}h12M${mx} ${my - 6}v12` : "");
  };
}

/** The triangle of mixtures of three experts, each with its answer. Returns how to update it. */
function drawMap(svg, data, session, mixes, choose) {
  const corners = [[28, 222], [165, 24], [302, 222]];
  const at = (shares) => [0, 1].map((k) => shares.reduce((sum, s, i) => sum + s * corners[i][k], 0));
  const parts = [g("path", { d: `M${corners.map((c) => c.join(" ")).join("L")}Z`, fill: "none", stroke: "var(--line)", "stroke-width": 1.5 })];
  const anchors = [["start", 8, 246], ["middle", 165, 12], ["end", 322, 246]];
  data.experts.forEach((name, i) => parts.push(g("text", { x: anchors[i][1], y: anchors[i][2], "text-anchor": anchors[i][0] }, `only ${name}`)));
  const nodes = mixes.map((mix) => {
    const [px, py] = at(mix.shares.map((s) => s / data.parts));
    const [, f1, verdict] = session.answers[session.grid[mix.place]];
    const name = data.experts.map((e, i) => `${e} ${mix.shares[i]}/${data.parts}`).join(", ");
    return g("g", { class: "rdkx-spot", role: "radio", "aria-label": `${name}: ${verdict}, F1 ${two(f1 / 1000)}`, tabindex: -1 },
      g("circle", { class: "rdkx-ring", cx: px, cy: py, r: 13 }), ...sign(verdict, px, py, 7));
  });
  const here = g("g", { "pointer-events": "none" });
  const group = g("g", { role: "radiogroup", "aria-label": "mixtures of the experts, the same in every layer" }, nodes);
  svg.replaceChildren(...parts, group, here);
  spots(nodes, (k) => { choose(k); nodes[k].focus(); });
  nodes.forEach((node, k) => node.addEventListener("click", () => choose(k)));
  return (chosen, mean) => {
    nodes.forEach((node, k) => {
      node.setAttribute("aria-checked", String(k === chosen));
      node.setAttribute("tabindex", k === Math.max(chosen, 0) ? 0 : -1);
    });
    const [px, py] = at(mean);
    const cross = { d: `M${px - 9} ${py}h18M${px} ${py - 9}v18`, fill: "none", "stroke-linecap": "round" };
    here.replaceChildren(
      g("path", { ...cross, stroke: "var(--card)", "stroke-width": 5 }), g("path", { ...cross, stroke: "var(--accent)", "stroke-width": 2.4 }));
  };
}
