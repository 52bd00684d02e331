// What the page computes by itself. Tests compare every function with its Python counterpart.

/** softmax(logits / temperature) among the experts that are on. */
function softmax(logits, temperature, on) {
  const scaled = logits.map((x, i) => (on[i] ? x / temperature : -Infinity));
  const top = Math.max(...scaled);
  const weights = scaled.map((x) => Math.exp(x - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** α of every layer, from rows of log α in ten-thousandths. */
function alphaOf(rows, temperature, on) {
  return rows.map((row) => softmax(row.map((x) => x / 10000), temperature, on));
}

/** Mean weight of every expert over the layers. */
function meanOf(alpha) {
  return alpha[0].map((_, i) => alpha.reduce((sum, row) => sum + row[i], 0) / alpha.length);
}

/** Entropy of α in nats, mean over the layers. */
function entropyOf(alpha) {
  const one = (row) => -row.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
  return alpha.reduce((sum, row) => sum + one(row), 0) / alpha.length;
}

/**
 * The vote among the first n drawn answers: counts of every option, and the winner's place (-1: nothing readable).
 * Ties go to the higher mean log-probability, then to the earlier option.
 */
function vote(votes, n) {
  const counts = votes.options.map(() => 0);
  const sums = votes.options.map(() => 0);
  votes.drawn.slice(0, n).forEach((option, i) => {
    if (option < 0) return;
    counts[option] += 1;
    sums[option] += votes.log_prob[i];
  });
  let winner = -1;
  counts.forEach((count, i) => {
    if (!count) return;
    const better = winner < 0 || count > counts[winner] || (count === counts[winner] && sums[i] > sums[winner]);
    if (better) winner = i;
  });
  return { counts, winner };
}

/** The place of the temperature on the grid that is nearest, in powers of two. */
function nearest(temperatures, temperature) {
  const away = temperatures.map((t) => Math.abs(Math.log2(t / temperature)));
  return away.indexOf(Math.min(...away));
}

/** The whole numbers with a given sum that are nearest to the values; of equal remainders the earlier is rounded up. */
function wholes(values, total) {
  const sum = values.reduce((a, b) => a + b, 0);
  const exact = values.map((value) => (value / sum) * total);
  const floors = exact.map((value) => Math.floor(value + 1e-9));
  const missing = total - floors.reduce((a, b) => a + b, 0);
  const order = exact.map((_, i) => i).sort((i, j) => (exact[j] - floors[j]) - (exact[i] - floors[i]) || i - j);
  order.slice(0, missing).forEach((i) => { floors[i] += 1; });
  return floors;
}

/** A mix as it is kept: whole parts where it lies on the grid of answers, else whole percents. */
function tidy(shares, parts) {
  const sum = shares.reduce((a, b) => a + b, 0);
  const fine = shares.map((share) => (share / sum) * parts);
  return fine.every((x) => Math.abs(x - Math.round(x)) < 1e-6) ? fine.map(Math.round) : wholes(shares, 100);
}

/** The mix in which one expert has so many percent, and the others share what is left as they did before. */
function shareOut(shares, place, percent) {
  const rest = shares.reduce((sum, share, i) => (i === place ? sum : sum + share), 0);
  const left = 100 - percent;
  return shares.map((share, i) => (i === place ? percent : left * (rest > 0 ? share / rest : 1 / (shares.length - 1))));
}

/** The place of the mixture on the grid that is nearest to a mix, and whether it is the same. */
function nearestMix(grid, shares) {
  const sum = (all) => all.reduce((a, b) => a + b, 0);
  const away = grid.map((mix) => sum(mix.map((m, i) => (m / sum(mix) - shares[i] / sum(shares)) ** 2)));
  const place = away.indexOf(Math.min(...away));
  return { place, exact: away[place] < 1e-9 };
}

/** Strict F1 of an answer where another is the truth; both are bundles, and these are items. */
function strictF1(answer, truth) {
  const within = (a, b) => a.every((item) => b.includes(item));
  const hits = answer.filter((a) => truth.some((b) => within(a, b))).length;
  const found = truth.filter((b) => answer.some((a) => within(a, b))).length;
  if (!hits) return 0;
  const [precision, recall] = [hits / answer.length, found / truth.length];
  return (2 * precision * recall) / (precision + recall);
}

/**
 * What consensus thinks of an answer: its mean strict F1 against the samples, as if each were the truth, and `weight`
 * times how often it is one of them. `counts` says how often each of the samples came.
 */
function agreement(answer, samples, counts, weight) {
  const total = counts.reduce((a, b) => a + b, 0);
  const text = (bundles) => bundles.map((items) => items.join(" ")).sort().join(",");
  const own = text(answer);
  return samples.reduce((sum, sample, i) => {
    if (!counts[i]) return sum;
    return sum + (counts[i] / total) * (strictF1(answer, sample) + (text(sample) === own ? weight : 0));
  }, 0);
}
