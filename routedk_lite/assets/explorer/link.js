// What is looked at, in words that fit behind the # of an address: #session=17&weights=dynamic&t=0.5&n=8&view=vote

const VIEWS = ["router", "vote"];
const HEATS = { low: -2, high: 3, steps: 4 };

/** Where α may come from: the choices that the page has. */
function sources(data) {
  return data.settings.some((text) => text.startsWith("mix ")) ? ["dynamic", "static", "average", "mix"] : ["dynamic", "static", "average"];
}

/** The state as a link says it. */
function writeLink(state, data) {
  const mixed = state.fusion === "mix";
  const off = mixed ? [] : data.experts.filter((_, i) => !state.on[i]);
  const parts = [
    ["session", [data.sessions[state.session].id]],
    ["weights", mixed ? state.mix : [state.fusion]],
    ...(off.length ? [["off", off]] : []),
    ["t", [Number(two(2 ** state.exponent))]],
    ["n", [state.n]],
    ["view", [state.view]],
  ];
  return parts.map(([name, values]) => `${name}=${values.map(encodeURIComponent).join(",")}`).join("&");
}

/** What each part of a link says; undefined where it means nothing here. */
const READERS = {
  session(text, data) {
    const place = data.sessions.findIndex((session) => String(session.id) === text);
    return place < 0 ? undefined : { session: place };
  },
  weights(text, data) {
    const known = sources(data);
    if (known.includes(text) && text !== "mix") return { fusion: text };
    const given = text.split(",");
    if (!known.includes("mix") || given.length !== data.experts.length) return undefined;
    const shares = given.map((one) => (/^\d{1,6}(\.\d{1,6})?$/.test(one) ? Number(one) : NaN));
    const sum = shares.reduce((a, b) => a + b, 0);
    return sum > 0 ? { fusion: "mix", mix: tidy(shares, data.parts) } : undefined;
  },
  off(text, data) {
    const names = text.split(",");
    const on = data.experts.map((name) => !names.includes(name));
    return names.every((name) => data.experts.includes(name)) && on.some(Boolean) ? { on } : undefined;
  },
  t(text) {
    const exponent = /^\d{1,3}(\.\d{1,6})?$/.test(text) ? Math.round(Math.log2(Number(text)) * HEATS.steps) / HEATS.steps : NaN;
    return exponent >= HEATS.low && exponent <= HEATS.high ? { exponent } : undefined;
  },
  n(text, data) {
    const n = /^\d{1,6}$/.test(text) ? Number(text) : NaN;
    return data.sizes.includes(n) ? { n } : undefined;
  },
  view(text) {
    return VIEWS.includes(text) ? { view: text } : undefined;
  },
};

/** What a link asks for, and which parts of it mean nothing here; null where it is no link to an explorer. */
function readLink(hash, data) {
  const decode = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
  const given = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const place = part.indexOf("=");
    if (place > 0 && Object.hasOwn(READERS, part.slice(0, place))) given.set(part.slice(0, place), decode(part.slice(place + 1)));
  }
  if (!given.size) return null;
  const values = {}, problems = [];
  for (const [name, text] of given) {
    const found = READERS[name](text, data);
    if (found) Object.assign(values, found);
    else problems.push(`${name} = ${text.length > 40 ? `${text.slice(0, 40)}…` : text}`);
  }
  return { values, problems };
}

/**
 * Whether this explorer may write into the page's address: the first one of a page of its own. JupyterLab keeps things of
 * its own there, and the address of a frame is nothing to link to.
 */
function ownsAddress() {
  return window.top === window && !document.querySelector(".rdkx[data-link]") && !document.body.hasAttribute("data-jp-theme-light");
}

/** Put a text where it can be pasted from: on the clipboard, or, where the browser does not let us, marked in a field. */
async function copy(text, field) {
  try {
    await navigator.clipboard.writeText(text);
    field.hidden = true;
    return "Link copied.";
  } catch {
    field.hidden = false;
    field.value = text;
    field.focus();
    field.select();
    return "Copy the marked link, with Ctrl + C or from its menu.";
  }
}
