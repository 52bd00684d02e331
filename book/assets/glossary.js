// Shows a term's entry beside its link: on hover, on keyboard focus, and at the first tap; the second tap follows it.
(() => {
  const GAP = 6, EDGE = 8; // pixels: below the link, and to the window's edge
  let shown = null; // the link whose entry is to be seen

  const tipOf = (link) => document.getElementById(link.getAttribute("aria-describedby"));

  const place = (link) => {
    const tip = tipOf(link), line = link.getClientRects()[0], box = tip.getBoundingClientRect();
    const below = line.bottom + GAP, above = line.top - GAP - box.height;
    const wide = document.documentElement.clientWidth - box.width - EDGE;
    tip.style.left = `${Math.max(EDGE, Math.min(line.left, wide))}px`;
    tip.style.top = `${below + box.height > innerHeight && above > 0 ? above : below}px`;
  };

  const hide = () => {
    if (shown) tipOf(shown).hidden = true;
    shown = null;
  };

  const show = (link) => {
    if (shown === link) return;
    hide();
    tipOf(link).hidden = false;
    place(link);
    shown = link;
  };

  // Left with the pointer: the entry stays while the pointer is on it or the link has the focus.
  const leave = (link) => setTimeout(() => {
    const held = link.matches(":hover, :focus-visible") || tipOf(link).matches(":hover");
    if (shown === link && !held) hide();
  }, 150);

  const prepare = (link, number) => {
    const tip = document.createElement("div");
    tip.id = `rdk-entry-${number}`;
    tip.className = "rdk-entry";
    tip.setAttribute("role", "tooltip");
    tip.hidden = true; // a description is read out all the same
    tip.textContent = link.title;
    link.removeAttribute("title"); // or the browser would show it as well
    link.setAttribute("aria-describedby", tip.id);
    (link.closest("article") || document.body).append(tip);

    let wasShown = false, touched = false;
    link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", () => leave(link));
    tip.addEventListener("pointerleave", () => leave(link));
    link.addEventListener("focus", () => link.matches(":focus-visible") && show(link));
    link.addEventListener("blur", () => leave(link));
    link.addEventListener("pointerdown", (event) => {
      wasShown = shown === link;
      touched = event.pointerType === "touch";
    });
    link.addEventListener("click", (event) => {
      if (touched && !wasShown) {
        event.preventDefault();
        show(link);
      }
      touched = false;
    });
  };

  const start = () => {
    document.querySelectorAll("a.rdk-term[title]").forEach(prepare);
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
    addEventListener("pointerdown", (event) => shown && !shown.contains(event.target) && !tipOf(shown).contains(event.target) && hide());
    for (const kind of ["scroll", "resize"]) addEventListener(kind, () => shown && place(shown), { passive: true, capture: true });
  };

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
