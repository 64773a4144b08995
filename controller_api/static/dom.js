// The few ways in which this page touches the document. What comes from the network becomes text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** An element; `attributes` are the page's own literals, `children` are nodes or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Sets text only where it differs: selections and screen readers are left in peace. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes the children of `parent` those of `items`, in order; the element of a key stays the same one. */
export function keyed(parent, items, keyOf, make, update) {
  const held = (parent.held ??= new Map());
  const keys = new Set(items.map((item) => String(keyOf(item))));
  for (const [key, node] of held) {
    if (!keys.has(key)) {
      node.remove();
      held.delete(key);
    }
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = held.get(key);
    if (!node) held.set(key, (node = make(item)));
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
}
