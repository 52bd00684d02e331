// Says where there is more on a page: what is wider than its column gets a class while something is hidden on its right or left.
(() => {
  const WIDE = "article :is(pre, .pst-scrollable-table-container, .cell_output, .output.text_html, figure, .rdk-figure, mjx-container)";

  const mark = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    const scrolls = hidden > 2 && getComputedStyle(box).overflowX !== "visible";
    box.classList.toggle("rdk-more-right", scrolls && box.scrollLeft < hidden - 2);
    box.classList.toggle("rdk-more-left", scrolls && box.scrollLeft > 2);
    if (scrolls && !box.hasAttribute("tabindex")) box.tabIndex = 0; // by keyboard too
  };

  const watch = () => {
    // On a page without contents the theme would watch every link, and stop at the first whose end is no element's name.
    if (!document.querySelector(".bd-toc-nav")) document.body.removeAttribute("data-bs-spy");
    const sizes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
    for (const box of document.querySelectorAll(WIDE)) {
      box.addEventListener("scroll", () => mark(box), { passive: true });
      sizes.observe(box); // calls at once, and when a folded cell is opened
    }
    // Formulas and pictures come later than the page.
    addEventListener("load", () => document.querySelectorAll(WIDE).forEach(mark));
  };

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", watch);
  else watch();
})();
