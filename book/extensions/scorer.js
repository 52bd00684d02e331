// Search: chapters and pages stand above the package's objects, unless what is looked for is the name of an object.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => {
    const query = (new URLSearchParams(window.location.search).get("q") || "").trim();
    const names = /[_.(]|[a-z]{2}[A-Z][a-z]/.test(query); // train_fusion, RoutedModel; not LoRA
    const reference = docname.startsWith("book/api/");
    return score - (reference && !names ? 100 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
