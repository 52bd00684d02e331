// One explorer: its state, its controls, and what follows from them.

function start(root, number) {
  const find = (name) => root.querySelector(`[data-x="${name}"]`);
  const all = (name) => [...root.querySelectorAll(`[data-x="${name}"]`)];
  const unchanged = () => ({ fusion: "dynamic", exponent: 0, on: data.experts.map(() => true) });
  const beginning = () => ({ ...unchanged(), session: data.first, mix: tidy(data.experts.map(() => 1), data.parts), n: data.sizes.at(-1), view: "router" });
  const state = beginning();
  const owner = ownsAddress();
  const mixes = data.settings.flatMap((text, place) =>
    text.startsWith("mix ") ? [{ place, shares: text.slice(4).split(",").map(Number) }] : []);
  const uniform = data.layers.map(() => data.experts.map(() => 0));
  const partsOf = (mix) => mix.reduce((a, b) => a + b, 0);
  let moveCloud, moveMap, timer, later, playing, held = null;

  const session = () => data.sessions[state.session];
  const temperature = () => 2 ** state.exponent;
  const everyone = () => state.on.every(Boolean);
  const onList = () => state.on.flatMap((on, i) => (on ? [i] : []));
  const ownRows = () => ({ dynamic: session().alpha, static: data.static }[state.fusion] || uniform);

  function alpha() {
    if (state.fusion === "mix") return data.layers.map(() => state.mix.map((s) => s / partsOf(state.mix)));
    return alphaOf(ownRows(), state.fusion === "average" ? 1 : temperature(), state.on);
  }

  /** Which answer stands for the present settings, and how it came about. */
  function present() {
    const here = session();
    const grid = (text) => here.grid[data.settings.indexOf(text)];
    const on = onList();
    if (state.fusion === "mix") {
      const { place, exact } = nearestMix(mixes.map(({ shares }) => shares), state.mix);
      const { shares } = mixes[place];
      return [here.grid[mixes[place].place], `computed beforehand for ${exact ? "this mixture" : `${mixInWords(shares)}, the nearest on the grid`}`];
    }
    if (on.length === 1) return [here.methods[data.experts[on[0]]], `recorded run of the ${data.experts[on[0]]} expert alone`];
    if (everyone() && (state.fusion === "average" || state.exponent === 0)) return [here.methods[state.fusion], "recorded run"];
    if (state.fusion === "average") {
      const shares = state.on.map((is) => (is ? data.parts / on.length : 0));
      return [grid(`mix ${shares.join(",")}`), "computed beforehand for these experts"];
    }
    const t = data.temperatures[nearest(data.temperatures, temperature())];
    const exact = Math.abs(Math.log2(t / temperature())) < 1e-6;
    return [grid(`${state.fusion} ${t} ${on.join(",")}`), `computed beforehand at temperature ${t}${exact ? "" : ", the nearest on the grid"}`];
  }

  function mixInWords(mix) {
    const sum = partsOf(mix);
    return data.experts.map((name, i) => `${name} ${mix[i]}${sum === data.parts ? `/${sum}` : " %"}`).join(", ");
  }

  function columns() {
    const here = session();
    const column = (name, kind, answer) => [name, kind, ...here.answers[answer]];
    const { winner } = vote(here.votes, state.n);
    const voted = winner < 0 ? here.votes.fallback : here.votes.options[winner];
    const truth = here.truth.map((items, i) => [items, "true", String.fromCharCode(65 + (i % 26)), i]);
    return [
      ["true", "rdkx-truth", truth, null, ""],
      ...data.methods.map((name) => (name === "vote" ? column(`vote of ${state.n}`, "", voted) : column(name, "", here.methods[name]))),
      column("now", "rdkx-now", present()[0]),
    ];
  }

  function settingInWords() {
    if (state.fusion === "mix") return `own mix (${mixInWords(state.mix)})`;
    const off = data.experts.filter((_, i) => !state.on[i]);
    const sharp = state.fusion === "average" ? "" : `, temperature ${two(temperature())}`;
    return `${state.fusion}${sharp}${off.length ? `, without ${off.join(" and ")}` : ""}`;
  }

  function say() {
    const here = session();
    const [answer, how] = present();
    const [marks, f1, verdict] = here.answers[answer];
    const right = data.experts.filter((name) => here.answers[here.methods[name]][2] === "exact");
    const alone = right.length ? `${right.join(" and ")}` : "none of them";
    find("now").replaceChildren(h("b", {}, `Now: ${settingInWords()}. `), `Bundles: ${inWords(marks)}. Strict F1 ${two(f1 / 1000)}, ${verdict}. `,
      h("span", { class: "rdkx-soft" }, `(${how})`));
    find("alone").textContent = `Experts that, alone, get this session exactly right: ${alone}.`;
    clearTimeout(timer);
    const heard = state.view === "vote" ? `the first ${state.n} answers. ${picksInWords(data, here, state.n)}`
      : `${settingInWords()}: ${inWords(marks)}. Strict F1 ${two(f1 / 1000)}, ${verdict}.`;
    timer = setTimeout(() => { find("live").textContent = `Session ${here.id}. ${heard}`; }, 400);
  }

  function signs(rows) {
    const most = Math.log(data.experts.length);
    const mean = entropyOf(rows);
    const flat = rows.every((row) => entropyOf([row]) > data.uniform * most);
    const one = data.experts.find((_, i) => rows.every((row) => row[i] > data.dominant));
    const sign = flat ? "Uniform in every layer: were it so in all sessions, the router would have learned nothing beyond averaging."
      : one ? `${one} has more than ${data.dominant} in every layer: were it so in all sessions, one expert would have taken over.` : "";
    find("entropy").textContent = `Entropy of α, mean over layers: ${two(mean)} of at most ${two(most)} nats. ${sign}`;
  }

  function controls(mean) {
    find("session").value = String(state.session);
    all("fusion").forEach((input) => { input.checked = input.value === state.fusion; });
    const fixed = state.fusion === "mix";
    all("on").forEach((input, i) => {
      input.checked = fixed ? mean[i] > 0 : state.on[i];
      input.disabled = fixed;
    });
    all("share").forEach((slider, i) => {
      slider.value = String(Math.round(100 * mean[i]));
      slider.setAttribute("aria-valuetext", `${two(mean[i])}${fixed ? "" : ", mean over layers"}`);
    });
    all("mean").forEach((node, i) => { node.textContent = two(mean[i]); });
    find("note").textContent = noteOn(fixed);
    find("note").classList.remove("rdkx-warn");
    const slider = find("temperature"), flat = fixed || state.fusion === "average";
    slider.value = String(state.exponent);
    slider.disabled = flat;
    slider.setAttribute("aria-valuetext", two(temperature()));
    find("heat-off").classList.toggle("rdkx-off", flat);
    find("degree").textContent = flat ? "no effect here" : two(temperature());
    all("view").forEach((input) => { input.checked = input.value === state.view; });
    VIEWS.forEach((name) => { find(`${name}-view`).hidden = name !== state.view; });
  }

  function noteOn(fixed) {
    if (fixed) return "Your own mix, the same in every layer. A weight of 0 switches an expert off.";
    const on = onList();
    if (on.length === 1) return `${data.experts[on[0]]} is the last one, and stays on: somebody has to answer.`;
    return all("share").length ? "Pull a slider for a mix of your own, the same in every layer." : "";
  }

  function render(newSession) {
    const rows = alpha(), mean = meanOf(rows), here = session();
    controls(mean);
    find("products").replaceChildren(...productsTable(here, columns()));
    if (newSession) find("truth").replaceChildren(...truthList(here));
    updateHeat(find("heat"), rows);
    const own = alphaOf(ownRows(), 1, data.experts.map(() => true));
    const changed = state.fusion !== "mix" && own.some((row, l) => row.some((a, i) => Math.abs(a - rows[l][i]) > 0.005));
    drawLines(find("lines"), data.experts, data.layers, rows, changed ? own : null);
    find("lines").setAttribute("aria-label", `Lines of α over the layers. Mean: ${data.experts.map((e, i) => `${e} ${two(mean[i])}`).join(", ")}.`);
    signs(rows);
    moveCloud(here, mean);
    if (find("map")) {
      if (newSession) moveMap = drawMap(find("map"), data, here, mixes, (k) => change({ fusion: "mix", mix: mixes[k].shares }));
      const { place, exact } = nearestMix(mixes.map(({ shares }) => shares), state.mix);
      moveMap(state.fusion === "mix" && exact ? place : -1, mean);
    }
    votes(here);
    say();
  }

  function votes(here) {
    const place = data.sizes.indexOf(state.n);
    find("n").value = String(place);
    find("n").setAttribute("aria-valuetext", `${state.n} answers`);
    all("stop").forEach((node, i) => node.classList.toggle("rdkx-here", i === place));
    find("answers").replaceChildren(...answersTable(data, here, state.n));
    find("growth").replaceChildren(...growthTable(data, here, state.n));
    find("picks").textContent = picksInWords(data, here, state.n);
    const now = choices(data, here, state.n);
    const column = (name, kind, answer) => [name, kind, ...here.answers[answer]];
    find("picked").replaceChildren(...productsTable(here, [
      columns()[0], column("majority", "", now.majority), column("consensus", "", now.consensus),
    ]));
  }

  function change(values) {
    const newSession = "session" in values && values.session !== state.session;
    Object.assign(state, values);
    held = null;
    render(newSession);
    remember();
  }

  // --- the link ---

  const address = () => `${window.location.href.split("#")[0]}#${writeLink(state, data)}`;

  /** Let the address follow, once the hand rests: some browsers refuse a page that changes it too often. */
  function remember() {
    clearTimeout(later);
    if (owner) later = setTimeout(() => { try { window.history.replaceState(window.history.state, "", address()); } catch { /* a host that forbids it */ } }, 250);
  }

  /** Show what the page's address asks for, if it asks for anything. */
  function follow() {
    const asked = readLink(window.location.hash, data);
    if (!asked) return false;
    stop();
    clearTimeout(later);
    Object.assign(state, beginning(), asked.values);
    held = null;
    find("said").textContent = asked.problems.length
      ? `The link asks for ${asked.problems.join(", ")}, which is not to be had here; shown is what stands here by default.` : "";
    return true;
  }

  function stop() {
    clearInterval(playing);
    playing = undefined;
    find("play").textContent = "Play";
  }

  function play() {
    if (playing) return stop();
    find("play").textContent = "Pause";
    if (state.n === data.sizes.at(-1)) change({ n: data.sizes[0] });
    playing = setInterval(() => {
      change({ n: data.sizes[data.sizes.indexOf(state.n) + 1] });
      if (state.n === data.sizes.at(-1)) stop();
    }, 900);
    return undefined;
  }

  /** One slider is moved. While it is the same one, the others keep the proportions they had before. */
  function mixBy(i, percent) {
    const before = held && held.place === i ? held : { place: i, shares: meanOf(alpha()) };
    change({ fusion: "mix", mix: tidy(shareOut(before.shares, i, percent), data.parts) });
    held = before;
  }

  function toggle(i, input) {
    const on = state.on.map((was, k) => (k === i ? input.checked : was));
    if (on.some(Boolean)) return change({ on });
    input.checked = true;
    find("note").classList.add("rdkx-warn");
    find("live").textContent = "At least one expert stays on.";
    return undefined;
  }

  // JupyterLab takes plain keys for commands of its own: an arrow would leave for another cell.
  root.addEventListener("keydown", (event) => { if (!(event.ctrlKey || event.altKey || event.metaKey)) event.stopPropagation(); });
  const listen = (name, event, act) => find(name).addEventListener(event, act);
  const step = (by) => change({ session: (state.session + by + data.sessions.length) % data.sessions.length });
  all("view").forEach((input) => {
    input.name = `rdkx-view-${number}`;
    input.addEventListener("change", () => change({ view: input.value }));
  });
  all("fusion").forEach((input) => {
    input.name = `rdkx-${number}`;
    input.addEventListener("change", () => change({ fusion: input.value }));
  });
  all("on").forEach((input, i) => input.addEventListener("change", () => toggle(i, input)));
  listen("session", "change", (event) => change({ session: Number(event.target.value) }));
  listen("before", "click", () => step(-1));
  listen("after", "click", () => step(1));
  listen("temperature", "input", (event) => change({ exponent: Number(event.target.value) }));
  all("share").forEach((slider, i) => slider.addEventListener("input", () => mixBy(i, Number(slider.value))));
  listen("n", "input", (event) => { stop(); change({ n: data.sizes[Number(event.target.value)] }); });
  listen("play", "click", play);
  listen("reset", "click", () => change(unchanged()));
  if (owner) {
    root.setAttribute("data-link", "");
    listen("copy", "click", async () => { find("said").textContent = await copy(address(), find("link")); });
    window.addEventListener("hashchange", () => { if (follow()) { render(true); root.scrollIntoView(); } });
  } else find("copy").hidden = true;
  moveCloud = drawCloud(find("cloud"), data, (i) => change({ session: i }));
  root.querySelectorAll("input, select, button").forEach((control) => { control.disabled = false; });
  const asked = owner && follow();
  render(true);
  if (asked) root.scrollIntoView();
}

// Every explorer with this payload that has not been started; each page, and each copy on it, starts its own.
document.querySelectorAll(`.rdkx[data-rdkx="${mark}"]:not([data-ready])`).forEach((root) => {
  const number = document.querySelectorAll(".rdkx[data-ready]").length;
  root.setAttribute("data-ready", "");
  start(root, `${mark}-${number}`);
});
