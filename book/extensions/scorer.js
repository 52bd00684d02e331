// Search: chapters and pages stand above the package's objects, unless what is looked for is the name of an object.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => {
    const query = (new URLSearchParams(window.location.search).get("q") || "").trim();
    const names = /[_.(]|[a-z][A-Z]/.test(query); // train_fusion, RoutedModel
    const reference = docname.startsWith("book/api/");
    // A page counts as much as a section of the same name; what only mentions a word comes after what is named by it.
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
