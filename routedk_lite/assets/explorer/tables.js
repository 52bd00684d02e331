// The two tables. `explorer_html.py` writes the same ones for the first paint; a test holds them equal.

/** The marks of one product in one answer: an array [[items, kind, label, truth], …]. */
function marksOf(answer, item) {
  const found = answer.filter(([items]) => items.includes(item));
  if (!found.length) return [h("span", { class: "rdkx-none", "aria-hidden": "true" }, "·"), hidden("none")];
  return found.map(([, kind, label, truth]) => {
    const colour = truth < 0 ? "" : ` rdkx-t${truth % 5}`;
    return h("span", { class: `rdkx-k rdkx-${kind}${colour}` }, label, hidden(kind === "true" ? " " : ` ${kind} `));
  });
}

/** Products as rows, methods as columns. `columns`: [name, class, answer, F1 in thousandths or null, verdict]. */
function productsTable(session, columns) {
  const cell = (tag, role, kind, ...inside) => h(tag, { role, class: kind || null }, ...inside);
  const heads = columns.map(([name, kind]) => {
    const head = cell("th", "columnheader", kind, h("span", {}, name));
    head.setAttribute("scope", "col");
    return head;
  });
  const rows = session.titles.map((title, i) =>
    h("tr", { role: "row" },
      h("th", { role: "rowheader", scope: "row" }, h("span", { class: "rdkx-n" }, String(i + 1)), ` ${title}`),
      columns.map(([, kind, answer]) => cell("td", "cell", kind, ...marksOf(answer, i + 1)))));
  const scores = columns.map(([, kind, , f1, verdict]) => f1 === null
    ? cell("td", "cell", kind, "–")
    : cell("td", "cell", kind, h("span", { "aria-hidden": "true" }, SIGN[verdict]), h("br"), two(f1 / 1000), hidden(` ${verdict}`)));
  return [
    h("caption", {}, `Session ${session.id}, where ${session.why}`),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("th", { role: "columnheader", scope: "col" }, "product"), heads)),
    h("tbody", { role: "rowgroup" }, rows),
    h("tfoot", { role: "rowgroup" }, h("tr", { role: "row" }, h("th", { role: "rowheader", scope: "row" }, "strict F1"), scores)),
  ];
}

/** What the letters stand for. */
function truthList(session) {
  return session.truth.map((items, i) => {
    const intent = session.intents[i] || `products ${items.join(", ")}`;
    return h("li", {}, h("span", { class: `rdkx-k rdkx-true rdkx-t${i % 5}` }, String.fromCharCode(65 + (i % 26))), h("span", {}, intent));
  });
}

/** α: a row per layer, the highest on top, a column per expert. */
function heatTable(experts, layers, alpha) {
  const heads = experts.map((name, i) => h("th", { scope: "col", style: `--c:var(--e${i % 4})` }, name));
  const rows = layers.map((layer, l) =>
    h("tr", {}, h("th", { scope: "row" }, String(layer)), alpha[l].map((a) => h("td", { style: `--a:${a.toFixed(3)}` }, two(a)))));
  return [
    h("caption", {}, "Weights α by layer and expert"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "layer"), heads)),
    h("tbody", {}, rows.reverse()),
  ];
}

/** The same in place, so that colours can glide. */
function updateHeat(table, alpha) {
  const rows = [...table.tBodies[0].rows].reverse();
  alpha.forEach((row, l) => row.forEach((a, i) => {
    const cell = rows[l].cells[i + 1];
    cell.style.setProperty("--a", a.toFixed(3));
    cell.textContent = two(a);
  }));
}

/** An answer in words. */
function inWords(answer) {
  if (!answer.length) return "no bundle";
  const words = { whole: ([items, , label]) => `${label} whole (${items.join(", ")})`, miss: ([items]) => `a miss (${items.join(", ")})` };
  words.part = ([items, , label]) => `an over-cut of ${label[0]} (${items.join(", ")})`;
  return answer.map((mark) => words[mark[1]](mark)).join("; ");
}
