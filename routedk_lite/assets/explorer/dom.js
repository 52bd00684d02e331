// Small helpers. Text goes into the page as text nodes only, so that no title can become markup.

/** Two decimals, halves upwards, as the Python side writes them. */
function two(x) {
  return (Math.floor(x * 100 + 0.5) / 100).toFixed(2);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

/** An HTML element. */
function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function g(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Text for screen readers only. */
function hidden(text) {
  return h("span", { class: "rdkx-vh" }, text);
}

const SIGN = { exact: "●", partly: "◐", wrong: "○" };

/** A circle that says exact (full), partly (half) or wrong (empty) at a place of an SVG. */
function sign(verdict, x, y, r) {
  const colour = verdict === "exact" ? "var(--good)" : "var(--ink)";
  const ring = g("circle", { cx: x, cy: y, r, fill: verdict === "exact" ? colour : "var(--card)", stroke: colour, "stroke-width": 1.4 });
  if (verdict !== "partly") return [ring];
  return [ring, g("path", { d: `M${x} ${y - r}a${r} ${r} 0 0 0 0 ${2 * r}z`, fill: colour })];
}

/** Groups that behave as radio buttons: one tab stop, arrows go to the next one. */
function spots(nodes, choose) {
  nodes.forEach((node, i) => {
    node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === " " || event.key === "Enter") choose(i);
      else if (step) choose((i + step + nodes.length) % nodes.length);
      else return;
      event.preventDefault();
    });
  });
}
