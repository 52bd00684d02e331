// The table of results: sorted by a click on a column's name, filtered by words, domain and profile. Works from the disk.
(() => {
  const CHOICES = ["profile", "domain"];

  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/^\[/, "").replace("−", "-"));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };

  const compare = (a, b) =>
    typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1;

  const make = (name, options = {}, ...inside) => {
    const element = Object.assign(document.createElement(name), options);
    element.append(...inside);
    return element;
  };

  const prepare = (box) => {
    const table = box.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows], names = heads.map((head) => head.textContent.trim());
    const words = make("input", { type: "text", placeholder: "for example: router" });
    const selects = CHOICES.map((name) => {
      const column = names.indexOf(name);
      const known = [...new Set(rows.map((row) => row.cells[column].textContent.trim()))];
      const select = make("select", {}, make("option", { value: "", textContent: "all" }));
      select.append(...known.map((text) => make("option", { value: text, textContent: text })));
      return { name, column, select };
    });
    const count = make("output", { className: "rdk-results-count" });

    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = wanted.every((word) => text.includes(word));
        row.hidden = !(fits && selects.every(({ column, select }) => !select.value || row.cells[column].textContent.trim() === select.value));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} runs`;
    };

    const sort = (column) => {
      const turn = heads[column].getAttribute("aria-sort");
      const numbers = rows.some((row) => typeof value(row, column) === "number");
      // Numbers begin with the largest, words with a; a second click turns the order round.
      const down = turn ? turn === "ascending" : numbers;
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const order = compare(x, y);
        return down && typeof x === typeof y ? -order : order; // a dash stays last
      });
      body.append(...sorted);
    };

    heads.forEach((head, column) => {
      const button = make("button", { type: "button", textContent: names[column] });
      button.addEventListener("click", () => sort(column));
      head.replaceChildren(button);
    });
    const fields = selects.map(({ name, select }) => make("label", {}, `${name} `, select));
    const form = make("form", { className: "rdk-results-form" }, make("label", {}, "filter ", words), ...fields, count);
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    box.prepend(form);
    filter();
  };

  const start = () => document.querySelectorAll(".rdk-results:has(table)").forEach(prepare);
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
