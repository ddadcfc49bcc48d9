// Live pieces, the new-job form, keys. Every page works without it, only less lively.
"use strict";

const find = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];

// Pieces of the page that the console sends when they change.

function put(id, html) {
  const element = document.getElementById(id);
  const made = document.createElement(element?.tagName ?? "div");
  made.innerHTML = html;
  if (!element || made.innerHTML === element.innerHTML) return;
  if (element.querySelector(":active")) {  // a click that has begun is to find its button
    setTimeout(put, 200, id, html);
    return;
  }
  const typing = element?.contains(document.activeElement) && /^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (typing) return;
  const ends = all("[data-end]", element).map((one) => one.scrollHeight - one.scrollTop - one.clientHeight < 30);
  const focused = element.contains(document.activeElement) && document.activeElement.closest("form")?.getAttribute("action");
  element.replaceChildren(...made.childNodes);
  all("[data-end]", element).forEach((one, at) => { if (ends[at] ?? true) one.scrollTop = one.scrollHeight; });
  if (focused) find(`form[action="${CSS.escape(focused)}"] button`, element)?.focus();
}

// To reload would take back a click that has begun to lead to another page.

let leaving = false;
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => { leaving = false; }, 5000);  // it was a file to be saved
});
const reload = () => leaving ? setTimeout(reload, 500) : location.reload();

function listen(element) {
  let source;
  const lost = document.getElementById("lost");
  const connect = () => {
    source = new EventSource(element.dataset.events);
    source.addEventListener("open", () => { lost.hidden = true; });
    source.addEventListener("over", () => reload());
    source.addEventListener("pieces", (event) => {
      const pieces = JSON.parse(event.data);
      const rows = pieces["#rows"];
      delete pieces["#rows"];
      if (rows !== undefined && "rows" in element.dataset && new Set(rows.split(" ")).symmetricDifference(new Set(element.dataset.rows.split(" "))).size) {
        if (!typingSomewhere()) reload();  // another job came, or went
        return;
      }
      for (const [id, html] of Object.entries(pieces)) put(id, html);
    });
    source.addEventListener("error", () => {
      lost.hidden = false;
      source.close();
      // A console that was started anew knows no sessions of the one before.
      setTimeout(() => fetch(location.href, {redirect: "manual"})
        .then((answer) => answer.type === "opaqueredirect" ? reload() : connect(), connect), 1500);
    });
  };
  connect();
  addEventListener("pagehide", () => source.close());
}

function typingSomewhere() {
  return /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName) && document.activeElement.value !== "";
}

all("[data-events]").forEach(listen);
all("[data-end]").forEach((one) => { one.scrollTop = one.scrollHeight; });

// The new-job form: what its buttons say appears beside them, and what was typed stays.

const form = find("form[data-new]");

async function send(what) {
  const data = new FormData(form);
  data.set("do", what);
  const answer = await fetch(form.action, {method: "POST", body: new URLSearchParams(data), headers: {Accept: "application/json"}});
  if (answer.status === 401) reload();
  return answer.json();
}

function mark(name, message) {
  all(".field.wrong", form).forEach((one) => one.classList.remove("wrong"));
  all("small.wrong", form).forEach((one) => one.remove());
  all("[aria-invalid]", form).forEach((one) => one.removeAttribute("aria-invalid"));
  const input = name && form.elements[name];
  if (!input?.closest) return false;
  const field = input.closest(".field");
  const small = Object.assign(document.createElement("small"), {className: "wrong", textContent: message});
  small.setAttribute("role", "alert");
  input.setAttribute("aria-invalid", "true");
  field.classList.add("wrong");
  field.append(small);
  input.closest("details")?.setAttribute("open", "");
  input.focus();
  return true;
}

async function press(button) {
  const what = button.value;
  const output = document.getElementById(`said-${what}`);
  const buttons = all("button[name=do]", form);
  buttons.forEach((one) => { one.disabled = true; });
  if (output) { output.className = "busy"; output.textContent = "…"; }
  try {
    const said = await send(what);
    if (said.location) { location.href = said.location; return; }
    const marked = mark(said.field, said.message);
    const alert = document.getElementById("said");
    alert.hidden = true;
    if (output) {
      output.className = said.good ? "good" : "bad";
      output.textContent = marked ? "" : said.message ?? said.detail;
    } else if (!marked) {
      alert.textContent = said.message ?? said.detail;
      alert.hidden = false;
      alert.scrollIntoView({block: "center"});
    }
  } catch {
    if (output) output.textContent = "";
    document.getElementById("lost").hidden = false;
  }
  buttons.forEach((one) => { one.disabled = false; });
}

if (form) {
  form.addEventListener("submit", (event) => {
    if (!event.submitter) return;
    event.preventDefault();
    press(event.submitter);
  });
  let timer;
  const line = async () => {
    const said = await send("command").catch(() => null);
    if (said) document.getElementById("command-line").textContent = said.good ? said.message : "";
  };
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(line, 400); });
  line();
}

all("[data-copy]").forEach((button) => {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent));
});

// Before something is given up.

document.addEventListener("submit", (event) => {
  const sure = event.target.dataset.sure;
  if (sure && !confirm(sure)) event.preventDefault();
});

// Keys: / searches, n begins a new job, j and k go through the rows.

const search = find("[data-search]");
search?.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/);
  all("[data-row]").forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const step = {j: 1, k: -1}[event.key];
  if (event.key === "/" && find("[type=search]")) {
    event.preventDefault();
    find("[type=search]").focus();
  } else if (event.key === "n" && document.body.dataset.csrf) {
    location.href = "/new";
  } else if (step) {
    const rows = all("[data-row]:not([hidden]) a.places");
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(Math.max(at + step, 0), rows.length - 1)]?.focus();
  }
});
