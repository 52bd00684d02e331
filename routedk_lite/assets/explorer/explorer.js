// One explorer: its state, its controls, and what follows from them.

function start(root, number) {
  const find = (name) => root.querySelector(`[data-x="${name}"]`);
  const all = (name) => [...root.querySelectorAll(`[data-x="${name}"]`)];
  const state = { session: data.first, fusion: "dynamic", exponent: 0, on: data.experts.map(() => true), mix: 0, n: 1 };
  const mixes = data.settings.flatMap((text, place) =>
    text.startsWith("mix ") ? [{ place, shares: text.slice(4).split(",").map(Number) }] : []);
  const uniform = data.layers.map(() => data.experts.map(() => 0));
  let moveCloud, moveMap, timer, playing;
  state.mix = mixes.findIndex(({ shares }) => new Set(shares).size === 1);
  if (state.mix < 0) state.mix = 0;

  const session = () => data.sessions[state.session];
  const temperature = () => 2 ** state.exponent;
  const everyone = () => state.on.every(Boolean);
  const onList = () => state.on.flatMap((on, i) => (on ? [i] : []));
  const ownRows = () => ({ dynamic: session().alpha, static: data.static }[state.fusion] || uniform);

  function alpha() {
    if (state.fusion === "mix") return data.layers.map(() => mixes[state.mix].shares.map((s) => s / data.parts));
    return alphaOf(ownRows(), state.fusion === "average" ? 1 : temperature(), state.on);
  }

  /** Which answer stands for the present settings, and how it came about. */
  function present() {
    const here = session();
    const grid = (text) => here.grid[data.settings.indexOf(text)];
    const on = onList();
    if (state.fusion === "mix") return [here.grid[mixes[state.mix].place], "computed beforehand for this mixture"];
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
    if (state.fusion === "mix") return `own mix (${data.experts.map((e, i) => `${e} ${mixes[state.mix].shares[i]}/${data.parts}`).join(", ")})`;
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
    timer = setTimeout(() => { find("live").textContent = `Session ${here.id}. ${settingInWords()}: ${inWords(marks)}. Strict F1 ${two(f1 / 1000)}, ${verdict}.`; }, 400);
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
    all("bar").forEach((bar, i) => bar.style.setProperty("--a", mean[i].toFixed(4)));
    all("mean").forEach((node, i) => { node.textContent = two(mean[i]); });
    const slider = find("temperature"), flat = fixed || state.fusion === "average";
    slider.value = String(state.exponent);
    slider.disabled = flat;
    slider.setAttribute("aria-valuetext", two(temperature()));
    find("heat-off").classList.toggle("rdkx-off", flat);
    find("degree").textContent = flat ? "no effect here" : two(temperature());
    find("n").value = String(state.n);
    find("voters").textContent = String(state.n);
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
      if (newSession) moveMap = drawMap(find("map"), data, here, mixes, (k) => change({ fusion: "mix", mix: k }));
      moveMap(state.fusion === "mix" ? state.mix : -1, mean);
    }
    drawVotes(find("votes"), here, state.n);
    strip(here);
    say();
  }

  function strip(here) {
    const winners = here.votes.drawn.map((_, i) => {
      const { winner } = vote(here.votes, i + 1);
      return here.answers[winner < 0 ? here.votes.fallback : here.votes.options[winner]][2];
    });
    find("strip").replaceChildren(...winners.map((verdict, i) => h("span", { class: i + 1 === state.n ? "rdkx-here" : null }, SIGN[verdict])));
    const exact = winners.filter((verdict) => verdict === "exact").length;
    find("strip").setAttribute("aria-label", `The winner is exactly right at ${exact} of ${winners.length} numbers of votes.`);
  }

  function change(values) {
    const newSession = "session" in values && values.session !== state.session;
    Object.assign(state, values);
    render(newSession);
  }

  function stop() {
    clearInterval(playing);
    playing = undefined;
    find("play").textContent = "Play";
  }

  function play() {
    if (playing) return stop();
    find("play").textContent = "Pause";
    if (state.n === data.sessions[state.session].votes.drawn.length) change({ n: 1 });
    playing = setInterval(() => {
      change({ n: state.n + 1 });
      if (state.n >= session().votes.drawn.length) stop();
    }, 350);
    return undefined;
  }

  function toggle(i, input) {
    const on = state.on.map((was, k) => (k === i ? input.checked : was));
    if (on.some(Boolean)) return change({ on });
    input.checked = true;
    find("live").textContent = "At least one expert stays on.";
    return undefined;
  }

  // JupyterLab takes plain keys for commands of its own: an arrow would leave for another cell.
  root.addEventListener("keydown", (event) => { if (!(event.ctrlKey || event.altKey || event.metaKey)) event.stopPropagation(); });
  const listen = (name, event, act) => find(name).addEventListener(event, act);
  const step = (by) => change({ session: (state.session + by + data.sessions.length) % data.sessions.length });
  state.n = session().votes.drawn.length;
  all("fusion").forEach((input) => {
    input.name = `rdkx-${number}`;
    input.addEventListener("change", () => change({ fusion: input.value }));
  });
  all("on").forEach((input, i) => input.addEventListener("change", () => toggle(i, input)));
  listen("session", "change", (event) => change({ session: Number(event.target.value) }));
  listen("before", "click", () => step(-1));
  listen("after", "click", () => step(1));
  listen("temperature", "input", (event) => change({ exponent: Number(event.target.value) }));
  listen("n", "input", (event) => { stop(); change({ n: Number(event.target.value) }); });
  listen("play", "click", play);
  listen("reset", "click", () => change({ fusion: "dynamic", exponent: 0, on: data.experts.map(() => true) }));
  moveCloud = drawCloud(find("cloud"), data, (i) => change({ session: i }));
  root.querySelectorAll("input, select, button").forEach((control) => { control.disabled = false; });
  render(true);
}

// Every explorer with this payload that has not been started; each page, and each copy on it, starts its own.
document.querySelectorAll(`.rdkx[data-rdkx="${mark}"]:not([data-ready])`).forEach((root) => {
  const number = document.querySelectorAll(".rdkx[data-ready]").length;
  root.setAttribute("data-ready", "");
  start(root, `${mark}-${number}`);
});
