// The page that looks on at a lab. It shows what the lab's own process computes, and knows no
// protocol; text from a session or a message only ever becomes text.

const $ = (selector, within = document) => within.querySelector(selector);
const MOST_ROWS = 10_000;

/** An element with attributes and children; strings become text. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A view that the lab has made: its HTML is inert, and all foreign text in it is escaped. */
function view(html) {
  const made = el("div");
  made.innerHTML = html;
  for (const link of made.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noreferrer";
  }
  return made;
}

const query = (path, values) => `${path}?${new URLSearchParams(values)}`;

// -- being let in

async function answered(answer) {
  const values = await answer.json();
  if (!answer.ok) throw new Error(values.error);
  return values;
}

/** What each question carries. It stays in this tab; other tabs of the lab are told when they ask. */
let secret = sessionStorage.getItem("secret");
let isIn = false;
const otherTabs = new BroadcastChannel("mail-lab");

/** The secret: for the token in the address, from before a reload, or from another tab. */
async function letIn() {
  const [, token] = location.hash.match(/^#token=(.*)$/) ?? [];
  let refused;
  if (token) {
    history.replaceState(null, "", "/");
    try {
      return (await answered(await fetch("/api/enter", { method: "POST", body: token }))).secret;
    } catch (error) {
      refused = error;
    }
  }
  for (const find of [() => secret, toldByAnotherTab]) {
    const known = await find();
    if (!known) continue;
    const answer = await fetch("/api/lab", { headers: { Authorization: `Bearer ${known}` } });
    if (answer.ok) return known;
    refused ??= new Error((await answer.json()).error);
  }
  throw refused ?? new Error("Open the address that the lab printed, with its token.");
}

function toldByAnotherTab() {
  return new Promise((tell) => {
    setTimeout(tell, 300);
    otherTabs.onmessage = ({ data }) => data.secret && tell(data.secret);
    otherTabs.postMessage({ asks: true });
  });
}

async function ask(path, values = {}, options = {}) {
  let answer;
  try {
    answer = await fetch(query(path, values), { ...options, headers: { Authorization: `Bearer ${secret}` } });
  } catch {
    throw new Error("The lab doesn't answer. If it has ended, start it again and open the address that it prints.");
  }
  return answered(answer);
}

/** An address that works for a minute without the secret, for what can't send it along. */
async function signed(path, values) {
  return (await ask("/api/signed", {}, { method: "POST", body: query(path, values) })).address;
}

/** A link that saves a file. */
function download(path, values, label = null) {
  const save = async (event) => {
    event.preventDefault();
    try {
      el("a", { href: await signed(path, values), download: true }).click();
    } catch (error) {
      link.replaceWith(el("span", { class: "note wrong", role: "alert" }, error.message));
    }
  };
  const link = el("a", { href: location.hash || "#", "aria-label": label, onclick: save }, "Download");
  return link;
}

const number = (value) => value.toLocaleString("en");
const count = (value, thing) => `${number(value)} ${thing}${value === 1 ? "" : "s"}`;

function clock(moment) {
  const date = new Date(moment);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.toLocaleDateString("en", { day: "numeric", month: "short" })} `;
  return el("time", { datetime: moment }, day + date.toLocaleTimeString("en-GB"));
}

/** Calls it at most once in so many milliseconds, the last time included. */
function calmly(milliseconds, act) {
  let waiting = 0;
  let last = -Infinity;
  return () => {
    if (waiting) return;
    waiting = setTimeout(() => {
      waiting = 0;
      last = performance.now();
      act();
    }, Math.max(0, last + milliseconds - performance.now()));
  };
}

/** Calls it when nothing has been asked for so many milliseconds. */
function settled(milliseconds, act) {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(act, milliseconds);
  };
}

/**
 * A list of thousands of rows, highest key first, of which only those in sight are elements.
 * Rows that come at the top push nothing away from under a pointer.
 */
class Rows {
  constructor(list, { key, draw, choose, more }) {
    Object.assign(this, { list, key, draw, choose, more });
    this.scroll = list.parentElement;
    this.fresh = $(".fresh", this.scroll.parentElement);
    this.rows = [];
    this.nodes = new Map();
    this.chosen = null;
    this.unseen = 0;
    this.pointed = false;
    this.height = parseFloat(getComputedStyle(list).getPropertyValue("--row"));
    this.scroll.addEventListener("scroll", () => this.show(), { passive: true });
    this.scroll.addEventListener("pointerenter", () => (this.pointed = true));
    this.scroll.addEventListener("pointerleave", () => (this.pointed = false));
    new ResizeObserver(() => this.show()).observe(this.scroll);
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.pick(Number(option.dataset.key));
    });
    list.addEventListener("keydown", (event) => this.typed(event));
    // A pointer has a row of its own in mind.
    list.addEventListener("focus", () => this.chosen == null && list.matches(":focus-visible") && this.move(0));
    this.fresh.addEventListener("click", () => {
      this.scroll.scrollTop = 0;
      list.focus({ preventScroll: true });
    });
  }

  /** Where the row with that key is, or would be. */
  place(key) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.key(this.rows[middle]) > key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  find(key) {
    const row = this.rows[this.place(key)];
    return row && this.key(row) === key ? row : null;
  }

  reset(rows) {
    const anchored = this.scroll.scrollTop > 0 && this.rows.length > 0;
    const top = anchored ? this.key(this.rows[Math.floor(this.scroll.scrollTop / this.height)] ?? rows[0] ?? this.rows[0]) : null;
    this.rows = rows.slice(0, MOST_ROWS);
    this.unseen = 0;
    this.show();
    if (top != null && this.find(top)) this.scroll.scrollTop = this.place(top) * this.height;
  }

  add(rows) {
    this.rows = this.rows.concat(rows).slice(0, MOST_ROWS);
    this.show();
  }

  /** Rows that are new or have changed; `least` is the lowest key that belongs here. */
  update(changed, least) {
    const newest = this.rows.length ? this.key(this.rows[0]) : -1;
    const above = [];
    for (const row of changed) {
      const key = this.key(row);
      const place = this.place(key);
      if (this.rows[place] && this.key(this.rows[place]) === key) this.rows[place] = row;
      else if (key > newest) above.push(row);
      else if (key >= least) this.rows.splice(place, 0, row);
    }
    if (above.length) {
      above.sort((a, b) => this.key(b) - this.key(a));
      const held = this.scroll.scrollTop > 0 || this.pointed || this.list.matches(":focus");
      this.rows = above.concat(this.rows).slice(0, MOST_ROWS);
      this.show();
      if (held && this.rows.length > above.length) {
        this.unseen += above.length;
        this.scroll.scrollTop += above.length * this.height;
      }
    }
    this.show();
    return above.length;
  }

  remove(keys) {
    const gone = new Set(keys);
    const before = this.rows.length;
    this.rows = this.rows.filter((row) => !gone.has(this.key(row)));
    if (this.rows.length !== before) this.show();
  }

  show() {
    const { scroll, rows, height, nodes } = this;
    const first = Math.max(0, Math.floor(scroll.scrollTop / height) - 4);
    const last = Math.min(rows.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / height) + 4);
    this.list.style.height = `${rows.length * height}px`;
    const seen = new Set();
    const draw = (place) => {
      const row = rows[place];
      const key = this.key(row);
      seen.add(key);
      let node = nodes.get(key);
      if (!node || node.row !== row) {
        const made = this.draw(row);
        if (node) node.element.replaceChildren(...made);
        else {
          const element = el("li", { role: "option", id: `${this.list.id}-${key}`, "data-key": key }, ...made);
          this.list.append(element);
          node = { element };
          nodes.set(key, node);
        }
        node.row = row;
      }
      node.element.style.top = `${place * height}px`;
      node.element.setAttribute("aria-selected", key === this.chosen);
      node.element.setAttribute("aria-posinset", place + 1);
      node.element.setAttribute("aria-setsize", rows.length);
    };
    for (let place = first; place < last; place++) draw(place);
    if (this.chosen != null && !seen.has(this.chosen) && this.find(this.chosen)) draw(this.place(this.chosen));
    for (const [key, node] of nodes) {
      if (!seen.has(key)) {
        node.element.remove();
        nodes.delete(key);
      }
    }
    // A screen reader goes by the order of the elements; those in place are left alone, for a
    // click on them may be under way.
    let next = this.list.firstElementChild;
    for (const key of [...seen].sort((a, b) => b - a)) {
      const { element } = nodes.get(key);
      if (element === next) next = next.nextElementSibling;
      else this.list.insertBefore(element, next);
    }
    const active = this.chosen != null && nodes.has(this.chosen);
    if (active) this.list.setAttribute("aria-activedescendant", `${this.list.id}-${this.chosen}`);
    else this.list.removeAttribute("aria-activedescendant");
    if (scroll.scrollTop < height) this.unseen = 0;
    this.fresh.hidden = !this.unseen;
    if (this.unseen) this.fresh.textContent = `↑ ${number(this.unseen)} new`;
    if (last >= rows.length - 20) this.more();
  }

  typed(event) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.height) - 1);
    const at = this.chosen == null ? -1 : this.place(this.chosen);
    const to = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: this.rows.length - 1,
    }[event.key];
    if (to == null || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(to);
  }

  move(to) {
    if (!this.rows.length) return;
    const place = Math.min(Math.max(0, to), this.rows.length - 1);
    const top = place * this.height;
    const { scroll } = this;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + this.height > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + this.height - scroll.clientHeight;
    this.pick(this.key(this.rows[place]), true);
  }

  pick(key, typed = false) {
    this.chosen = key;
    this.show();
    this.choose(this.find(key), typed);
  }
}

/** Tabs over a panel that is filled when a tab is chosen; the choice outlives the thing shown. */
class Tabs {
  constructor(label, memory) {
    this.list = el("div", { role: "tablist", "aria-label": label });
    this.id = `panel-${memory}`;
    this.panel = el("div", { role: "tabpanel", id: this.id, tabindex: "0" });
    this.memory = memory;
    this.list.addEventListener("keydown", (event) => {
      const tabs = [...this.list.children];
      const at = tabs.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to == null) return;
      event.preventDefault();
      const tab = tabs[(to + tabs.length) % tabs.length];
      tab.focus();
      tab.click();
    });
  }

  /** Offers these tabs: their name and what fills the panel, at once or as a promise. */
  offer(tabs, wanted) {
    const names = tabs.map(([name]) => name);
    const chosen = [wanted, Tabs.chosen[this.memory], names[0]].find((name) => names.includes(name));
    const focused = this.list.contains(document.activeElement);
    this.list.replaceChildren(
      ...tabs.map(([name, fill]) => {
        const tab = el("button", { type: "button", role: "tab", id: `${this.id}-${name.replaceAll(" ", "-")}`, "aria-controls": this.id });
        tab.textContent = name;
        tab.addEventListener("click", () => {
          Tabs.chosen[this.memory] = name;
          this.open(tab, fill);
        });
        if (name === chosen) {
          this.open(tab, fill);
          if (focused) setTimeout(() => tab.focus());
        }
        return tab;
      }),
    );
  }

  open(tab, fill) {
    for (const other of this.list.children) other.setAttribute("aria-selected", false), (other.tabIndex = -1);
    tab.setAttribute("aria-selected", true);
    tab.tabIndex = 0;
    this.panel.setAttribute("aria-labelledby", tab.id);
    this.fill = fill;
    this.again();
  }

  /** Fills the panel anew; what is unfolded stays so. */
  async again() {
    const { fill } = this;
    const waits = setTimeout(() => this.panel.setAttribute("aria-busy", true), 150);
    let filled;
    try {
      filled = await fill();
    } catch (error) {
      filled = el("p", { class: "note wrong", role: "alert" }, error.message);
    }
    clearTimeout(waits);
    if (fill !== this.fill) return;
    const unfolded = this.filled === fill ? [...this.panel.querySelectorAll("details")].map((one) => one.open) : [];
    this.panel.removeAttribute("aria-busy");
    this.panel.replaceChildren(filled);
    this.filled = fill;
    this.panel.querySelectorAll("details").forEach((one, place) => (one.open = unfolded[place] ?? one.open));
  }
}
Tabs.chosen = {};

const narrow = matchMedia("(max-width: 52rem)");

/** Shows a chosen thing; on a narrow screen it is below the list. */
function fill(detail, typed, ...content) {
  detail.replaceChildren(...content);
  detail.scrollTop = 0;
  if (narrow.matches && !typed) detail.scrollIntoView({ block: "start" });
}

// -- sessions

const OUTCOMES = { done: "✓ done", later: "↻ later", refused: "✕ refused", "broken off": "! broken off", open: "● open" };
const sessions = { below: 0, kept: 0, total: 0, held: null, shown: null, loading: false, tabs: null };
const filters = $("#sessions .filters");
const wanted = () => Object.fromEntries([...new FormData(filters)].filter(([, value]) => value));

const sessionRows = new Rows($("#session-list"), {
  key: (row) => row.number,
  draw: (row) => [
    el("span", {}, el("b", {}, row.protocol), ` ${row.listener} `, row.tls ? el("span", { class: "tls" }, "TLS ") : null, el("span", { class: "soft" }, `#${row.number}`), row.number === sessions.held ? el("span", { class: "held" }, " A") : null),
    clock(row.started),
    el("span", { class: "soft" }, row.about),
    el("span", { class: `chip ${row.outcome.split(" ")[0]}` }, OUTCOMES[row.outcome] ?? row.outcome),
  ],
  choose: (row, typed) => row && showSession(row, typed),
  more: () => moreSessions(),
});

const moreSessions = calmly(100, async () => {
  if (!sessions.below || sessions.loading || sessionRows.rows.length >= MOST_ROWS) return;
  sessions.loading = true;
  const { source } = sessions;
  try {
    const page = await ask("/api/sessions", { ...wanted(), below: sessions.below });
    if (source !== sessions.source) return;
    sessions.below = page.below;
    sessionRows.add(page.rows);
    tellSessions(page);
  } catch {
    // The news say so when the lab has ended.
  } finally {
    sessions.loading = false;
    sessionRows.show();
  }
});

function tellSessions({ kept, total }) {
  Object.assign(sessions, { kept, total });
  const filtered = Object.keys(wanted()).length > 0;
  const found = sessionRows.rows.length;
  const all = kept < total ? `${count(total, "session")}, the latest ${number(kept)} kept` : count(total, "session");
  const more = sessions.below ? "+" : "";
  $("#session-count").textContent = !total ? "No session yet" : filtered ? `${number(found)}${more} found of ${count(kept, "session")}` : all;
}

let unsaid = 0;
const say = calmly(8000, () => {
  if (unsaid) $("#news").textContent = `${count(unsaid, "new session")}`;
  unsaid = 0;
});

function live(state, words) {
  $("#state").className = state;
  $("#state span:last-child").textContent = words;
}

async function listen() {
  sessions.source?.close();
  const turn = (sessions.turn = {});
  let address;
  try {
    address = await signed("/api/news", wanted());
  } catch {
    return live("over", "the lab has ended");
  }
  if (turn !== sessions.turn) return;
  const source = (sessions.source = new EventSource(address));
  source.onopen = () => live("live", "live");
  source.onerror = () => {
    live("", "the lab doesn't answer");
    // After a minute the address works no longer.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => turn === sessions.turn && listen(), 3000);
  };
  source.onmessage = (event) => {
    const { page, rows = [], gone = [], kept, total } = JSON.parse(event.data);
    if (page) {
      sessions.below = page.below;
      sessionRows.reset(page.rows);
      tellSessions(page);
    } else {
      if (gone.length) sessionRows.remove(gone);
      unsaid += sessionRows.update(rows, sessions.below);
      tellSessions({ kept, total });
      if (unsaid) say();
    }
    const chosen = sessionRows.find(sessionRows.chosen);
    if (chosen && sessions.shown?.number === chosen.number && (sessions.shown.lines !== chosen.lines || sessions.shown.outcome !== chosen.outcome)) {
      sessions.shown = chosen;
      sessions.about.firstChild.data = `${chosen.about}, `;
      sessions.tabs.again();
    }
    refreshMail();
  };
}

const fetchSession = settled(60, () => sessions.offer());

function showSession(row, typed) {
  if (sessions.shown?.number === row.number) return;
  sessions.shown = row;
  const tabs = (sessions.tabs = new Tabs("Views of the session", "session"));
  const views = { Dialogue: "dialogue", Sequence: "sequence", States: "states", "On the wire": "wire", Times: "times" };
  const offered = Object.entries(views).map(([name, which]) => [
    name,
    async () => view((await ask("/api/session", { number: row.number, view: which })).html),
  ]);
  const { held } = sessions;
  const compared = held != null && held !== row.number;
  if (compared) {
    offered.push([`A: #${held}, B: #${row.number}`, async () => view((await ask("/api/compare", { a: held, b: row.number })).html)]);
  }
  const hold = el("button", { type: "button", "aria-pressed": held === row.number }, held === row.number ? "Choose the other one" : "Compare");
  hold.addEventListener("click", () => {
    sessions.held = sessions.held === row.number ? null : row.number;
    hold.setAttribute("aria-pressed", sessions.held === row.number);
    hold.textContent = sessions.held === row.number ? "Choose the other one" : "Compare";
    sessionRows.nodes.forEach((node) => (node.row = null));
    sessionRows.show();
  });
  const head = el(
    "div",
    { class: "head" },
    el("h2", {}, `Session ${row.number}`),
    (sessions.about = el("p", {}, `${row.about}, `, clock(row.started))),
    el("div", { class: "acts" }, hold, download("/api/session.json", { number: row.number })),
  );
  fill($("#session"), typed, head, tabs.list, tabs.panel);
  sessions.offer = () => tabs.offer(offered, compared ? offered.at(-1)[0] : undefined);
  if (typed) fetchSession();
  else sessions.offer();
}

filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", settled(200, () => {
  sessionRows.scroll.scrollTop = 0;
  listen();
}));

// -- mail

const mail = { below: 0, searched: 0, of: 0, loading: false, mailbox: null, asked: 0 };
const finder = $("#mail .filters");

const messageRows = new Rows($("#message-list"), {
  key: (row) => row.uid,
  draw: (row) => [
    el("b", {}, row.subject),
    clock(row.received),
    el("span", { class: "soft" }, row.from),
    el("span", { class: "soft" }, size(row.octets)),
  ],
  choose: (row, typed) => row && showMessage(row, typed),
  more: () => moreMessages(),
});

function size(octets) {
  if (octets < 10_000) return count(octets, "octet");
  return octets < 1e6 ? `${Math.round(octets / 1000)} kB` : `${(octets / 1e6).toFixed(1)} MB`;
}

const place = () => {
  const [account, mailbox] = JSON.parse(finder.mailbox.value || '["",""]');
  return { account, mailbox };
};

async function showMailboxes() {
  const { accounts, more } = await ask("/api/accounts", { text: finder.address.value });
  if (more) finder.address.hidden = false;
  const chosen = finder.mailbox.value;
  finder.mailbox.replaceChildren(
    ...accounts.map(({ address, mailboxes }) =>
      el("optgroup", { label: address }, ...mailboxes.map(([name, messages]) =>
        el("option", { value: JSON.stringify([address, name]) }, `${address} – ${name} (${number(messages)})`))),
    ),
  );
  const fullest = accounts.find(({ mailboxes }) => mailboxes.some(([, messages]) => messages)) ?? accounts[0];
  const values = [...finder.mailbox.options].map((option) => option.value);
  finder.mailbox.value = values.includes(chosen) ? chosen : fullest ? JSON.stringify([fullest.address, (fullest.mailboxes.find(([, n]) => n) ?? fullest.mailboxes[0])[0]]) : "";
  return finder.mailbox.value !== chosen;
}

async function showMessages() {
  const asked = ++mail.asked;
  const values = { ...place(), text: finder.text.value, where: finder.where.value };
  if (!values.account) return;
  try {
    const found = await ask("/api/messages", values);
    if (asked !== mail.asked) return;
    Object.assign(mail, { below: found.below, searched: found.searched, of: found.of });
    messageRows.reset(found.messages);
    tellMessages();
  } catch (error) {
    $("#message-count").textContent = error.message;
  }
}

const moreMessages = calmly(100, async () => {
  if (!mail.below || mail.loading || messageRows.rows.length >= MOST_ROWS) return;
  mail.loading = true;
  const { asked } = mail;
  try {
    const found = await ask("/api/messages", { ...place(), text: finder.text.value, where: finder.where.value, below: mail.below });
    if (asked !== mail.asked) return;
    Object.assign(mail, { below: found.below, searched: mail.searched + found.searched, of: found.of });
    messageRows.add(found.messages);
    tellMessages();
  } catch (error) {
    $("#message-count").textContent = error.message;
  } finally {
    mail.loading = false;
    messageRows.show();
  }
});

function tellMessages() {
  const found = messageRows.rows.length;
  const sought = finder.text.value.trim();
  const all = count(mail.of, "message");
  $("#message-count").textContent = !sought ? all : mail.below ? `${number(found)} found in the newest ${number(mail.searched)} of ${all}` : `${number(found)} found in ${all}`;
}

/** Mail comes and goes by sessions alone; so their news are its news. */
const refreshMail = calmly(1000, async () => {
  if ($("#mail").hidden) return;
  try {
    const before = finder.mailbox.selectedOptions[0]?.textContent;
    await showMailboxes();
    if (finder.mailbox.selectedOptions[0]?.textContent !== before) await showMessages();
  } catch {
    // The news say so when the lab has ended.
  }
});

const fetchMessage = settled(60, () => mail.fetch());

function showMessage(row, typed) {
  const where = { ...place(), uid: row.uid };
  mail.fetch = async () => {
    const detail = $("#message");
    let letter;
    try {
      letter = await ask("/api/message", where);
    } catch (error) {
      const acts = el("div", { class: "acts" }, download("/api/message/raw", where));
      fill(detail, typed, el("div", { class: "head" }, el("h2", {}, row.subject), acts), el("p", { class: "note wrong", role: "alert" }, error.message));
      return;
    }
    if (messageRows.chosen !== row.uid) return;
    const tabs = new Tabs("Views of the message", "message");
    const head = el(
      "div",
      { class: "head" },
      el("h2", {}, letter.subject),
      el("p", {}, `${letter.from}${letter.to ? ` → ${letter.to}` : ""}, ${letter.facts.join(", ")}`),
      el("div", { class: "acts" }, download("/api/message/raw", where)),
    );
    fill(detail, typed, head, tabs.list, tabs.panel);
    tabs.offer([
      ...(letter.html ? [["Rendered", () => rendered(letter, where)]] : []),
      ["Text", () => text(letter)],
      ["Headers", () => headers(letter)],
      ["Parts", () => parts(letter, where)],
      ["Raw", () => raw(letter)],
      ["Overview", () => view(letter.view)],
    ]);
  };
  if (typed) fetchMessage();
  else mail.fetch();
}

async function rendered(letter, where) {
  const made = document.createDocumentFragment();
  const notes = ["Shown in a sandbox: no script runs, nothing is fetched from elsewhere, no link leads away.", ...letter.notes, ...(letter.cut ? ["Only the beginning is rendered."] : [])];
  made.append(
    el("p", { class: "note" }, notes.join(" ")),
    el("iframe", { sandbox: "", title: "The message as HTML", src: await signed("/api/message/rendered", where), referrerpolicy: "no-referrer" }),
  );
  if (letter.links.length) made.append(links(letter));
  return made;
}

function links({ links: found, more_links: more }) {
  const items = found.map(([what, address]) => el("li", {}, what === "form" ? el("b", {}, "form") : null, el("code", {}, address)));
  if (more) items.push(el("li", {}, `and ${number(more)} more`));
  return el("details", { class: "links" }, el("summary", {}, `Where its links lead (${number(found.length + more)})`), el("ul", { class: "sheet" }, ...items));
}

function text(letter) {
  if (!letter.text) return el("p", { class: "note" }, "This message has no plain text.");
  return el("div", {}, el("pre", { class: "sheet" }, letter.text), letter.more ? el("p", { class: "note" }, "It goes on.") : null);
}

function headers(letter) {
  return el("dl", { class: "sheet" }, ...letter.fields.flatMap(({ name, value, read }) => [
    el("dt", {}, name),
    el("dd", {}, value, read ? el("span", {}, read) : null),
  ]));
}

function parts(letter, where) {
  return el("ul", { class: "sheet" }, ...letter.parts.map(({ depth, said, file }, part) => {
    const item = el("li", {}, el("span", {}, said));
    item.style.setProperty("--d", depth);
    if (file) item.append(download("/api/message/part", { ...where, part }, `Download ${said}`));
    return item;
  }));
}

function raw(letter) {
  const rest = letter.unshown ? el("p", { class: "note" }, `${count(letter.unshown, "octet")} more aren't shown; download it to have all.`) : null;
  return el("div", {}, el("pre", { class: "sheet" }, letter.raw), rest);
}

finder.addEventListener("submit", (event) => event.preventDefault());
finder.addEventListener("input", settled(200, async () => {
  messageRows.scroll.scrollTop = 0;
  if (document.activeElement === finder.address) await showMailboxes();
  await showMessages();
}));

// -- what goes wrong on purpose

function tellFaults({ switches, rules }) {
  const focused = document.activeElement?.id;
  $("#switches").replaceChildren(...switches.map(({ name, meaning, rule, on }, number) => {
    const box = el("input", { type: "checkbox", role: "switch", id: `fault-${number}`, checked: on });
    box.addEventListener("change", async () => {
      try {
        tellFaults(await ask("/api/faults", {}, { method: "POST", body: JSON.stringify({ name, on: box.checked }) }));
      } catch (error) {
        $("#rules").replaceChildren(el("p", { class: "note wrong", role: "alert" }, error.message));
      }
    });
    return el("li", {}, el("label", {}, box, " ", name), el("p", {}, meaning), el("code", {}, rule));
  }));
  $("#rules").replaceChildren(
    rules.length ? el("ol", { class: "sheet" }, ...rules.map((rule) => el("li", {}, el("code", {}, rule)))) : el("p", { class: "note" }, "None: nothing goes wrong on purpose."),
  );
  if (focused) document.getElementById(focused)?.focus();
  $('[data-room="faults"]').classList.toggle("on", rules.length > 0);
}

// -- a log from elsewhere

$("#log .paste").addEventListener("submit", async (event) => {
  event.preventDefault();
  const found = $("#log .found");
  try {
    const said = await ask("/api/log", {}, { method: "POST", body: event.target.log.value });
    found.replaceChildren(view(said.html));
  } catch (error) {
    found.replaceChildren(el("p", { class: "note wrong", role: "alert" }, error.message));
  }
});

// -- the rooms

function enter(room) {
  if (!$(`[data-room="${room}"]`)) room = "sessions";
  for (const button of document.querySelectorAll("[data-room]")) {
    if (button.dataset.room === room) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    $(`#${button.dataset.room}`).hidden = button.dataset.room !== room;
  }
  if (location.hash !== `#/${room}`) history.replaceState(null, "", `#/${room}`);
  if (!isIn) return; // it is entered again then
  if (room === "mail") showMailboxes().then(showMessages);
  if (room === "faults") ask("/api/faults").then(tellFaults);
}

for (const button of document.querySelectorAll("[data-room]")) {
  button.addEventListener("click", () => enter(button.dataset.room));
}

async function start() {
  secret = await letIn();
  sessionStorage.setItem("secret", secret);
  otherTabs.onmessage = ({ data }) => data.asks && otherTabs.postMessage({ secret });
  const lab = await ask("/api/lab");
  document.title = `Mail Lab – ${lab.name}`;
  for (const outcome of lab.outcomes) $("[name=outcome]", filters).append(el("option", {}, outcome));
  for (const [name, port] of lab.listeners) $("#ports").append(el("dt", {}, name), el("dd", {}, `127.0.0.1:${port}`));
  tellFaults(await ask("/api/faults"));
  isIn = true;
  listen();
  enter(location.hash.slice(2));
}

start().catch((error) => {
  sessionStorage.removeItem("secret");
  live("over", "not let in");
  $(".top nav").hidden = true;
  $("main").replaceChildren(el("div", { class: "empty", role: "alert" }, el("h2", {}, "This tab isn't let in"), el("p", {}, error.message)));
});
