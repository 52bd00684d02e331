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
