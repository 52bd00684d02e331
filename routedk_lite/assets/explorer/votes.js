// What a vote sees: the answers that are in, and whom majority and consensus pick among them.

const SHOWN_ANSWERS = 7;

/** The bundles of an answer, as lists of items. */
function bundlesOf(here, place) {
  return here.answers[place][0].map(([items]) => items);
}

/** Whom the first n answers choose: both places among the session's answers, the counts, and what consensus thinks. */
function choices(data, here, n) {
  const { votes } = here;
  const { counts, winner } = vote(votes, n);
  const samples = votes.options.map((place) => bundlesOf(here, place));
  const readable = counts.some(Boolean);
  return {
    counts,
    majority: winner < 0 ? votes.fallback : votes.options[winner],
    consensus: votes.consensus[data.sizes.indexOf(n)],
    worth: (place) => (readable ? agreement(bundlesOf(here, place), samples, counts, data.exact_weight) : 0),
  };
}

/** The answers that have a row, the same at every n: those that come most often, and whoever is ever picked. */
function answersShown(data, here) {
  const { votes } = here;
  const final = vote(votes, votes.drawn.length).counts;
  const often = votes.options.map((_, i) => i).sort((i, j) => final[j] - final[i] || i - j).map((i) => votes.options[i]);
  const picked = data.sizes.flatMap((n) => { const { majority, consensus } = choices(data, here, n); return [majority, consensus]; });
  const shown = new Set([...often.slice(0, SHOWN_ANSWERS), ...picked]);
  return [...often.filter((place) => shown.has(place)), ...[...shown].filter((place) => !often.includes(place))];
}

const PICKS = { majority: "★ majority", consensus: "◆ consensus" };

/** The table of answers at n: how often each has come, how well it agrees with all, and who picks it. */
function answersTable(data, here, n) {
  const { votes } = here;
  const now = choices(data, here, n);
  const places = answersShown(data, here);
  const cell = (...inside) => h("td", {}, ...inside);
  const bar = (count) => h("span", { class: "rdkx-stack" },
    count ? h("span", { class: "rdkx-blocks", style: `--n:${count};--of:${n}` }) : null, h("span", { class: "rdkx-num" }, String(count)));
  const rows = places.map((place) => {
    const [, f1, verdict] = here.answers[place];
    const option = votes.options.indexOf(place);
    const count = option < 0 ? 0 : now.counts[option];
    const picks = Object.keys(PICKS).filter((name) => now[name] === place);
    const text = bundlesOf(here, place).map((items) => items.join(" ")).join(" · ") || "no bundle";
    return h("tr", { class: picks.length ? "rdkx-picked" : count ? null : "rdkx-later" },
      h("th", { scope: "row" }, text, option < 0 ? h("span", { class: "rdkx-soft" }, " (nobody wrote it)") : null,
        picks.flatMap((name) => [" ", h("span", { class: `rdkx-pick-${name}` }, PICKS[name])])),
      cell(bar(count)),
      h("td", { class: "rdkx-num" }, count || picks.length ? two(now.worth(place)) : "–"),
      h("td", { class: "rdkx-num" }, h("span", { "aria-hidden": "true" }, `${SIGN[verdict]} `), two(f1 / 1000), hidden(` ${verdict}`)));
  });
  const rest = (name, count) => h("tr", { class: count ? null : "rdkx-later" }, h("th", { scope: "row" }, name), cell(bar(count)), cell(), cell());
  const others = votes.options.map((place, i) => (places.includes(place) ? -1 : i)).filter((i) => i >= 0);
  if (others.length) rows.push(rest(`${others.length} other answers`, others.reduce((sum, i) => sum + now.counts[i], 0)));
  if (votes.drawn.includes(-1)) rows.push(rest("unreadable", votes.drawn.slice(0, n).filter((option) => option < 0).length));
  const heads = ["answer", "times", "agreement", "strict F1"].map((name) => h("th", { scope: "col" }, name));
  return [
    h("caption", {}, `The first ${n} of ${votes.drawn.length} sampled answers`),
    h("thead", {}, h("tr", {}, heads)),
    h("tbody", {}, rows),
  ];
}

/** Strict F1 of what either picks, at every n. */
function growthTable(data, here, n) {
  const mark = (size) => (size === n ? "rdkx-here" : null);
  const rows = Object.keys(PICKS).map((name) => h("tr", {}, h("th", { scope: "row" }, PICKS[name]), data.sizes.map((size) => {
    const [, f1, verdict] = here.answers[choices(data, here, size)[name]];
    return h("td", { class: mark(size) }, h("span", { "aria-hidden": "true" }, SIGN[verdict]), h("br"), two(f1 / 1000), hidden(` ${verdict}`));
  })));
  return [
    h("caption", {}, "Strict F1 of the pick as N grows"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "N"), data.sizes.map((size) => h("th", { scope: "col", class: mark(size) }, String(size))))),
    h("tbody", {}, rows),
  ];
}

/** Both picks in words. */
function picksInWords(data, here, n) {
  const now = choices(data, here, n);
  const one = (name, place) => {
    const [marks, f1, verdict] = here.answers[place];
    return `${name}${inWords(marks)}, strict F1 ${two(f1 / 1000)}, ${verdict}`;
  };
  if (!now.counts.some(Boolean)) return `None of the first ${n} can be read. The greedy answer stands: ${one("", now.majority)}.`;
  if (now.majority === now.consensus) return `Both pick the same: ${one("", now.majority)}.`;
  return `They differ. ${one("Majority: ", now.majority)}. ${one("Consensus: ", now.consensus)}.`;
}
