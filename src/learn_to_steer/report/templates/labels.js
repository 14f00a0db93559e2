"use strict";
// Labels by eye. They are kept in the browser until they are saved as labels.json, which "audit --labels" reads.
const body = document.body, always = body.dataset.labelling === "always";
const figures = [...document.querySelectorAll("figure[data-id]")];
const choices = JSON.parse(body.dataset.choices), key = "labels of " + location.pathname + " " + body.dataset.key;
let labels = {};
try { labels = JSON.parse(localStorage.getItem(key)) || {}; } catch { /* storage may be forbidden */ }
function show() {
  for (const figure of figures) {
    const label = labels[figure.dataset.id];
    if (label) figure.dataset.label = label; else delete figure.dataset.label;
    for (const button of figure.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === label);
  }
  document.querySelector(".count").textContent = Object.keys(labels).length + " of " + figures.length + " labelled";
}
for (const figure of figures) {
  const place = figure.querySelector(".labels");
  for (const [label, meaning] of Object.entries(choices)) {
    const button = document.createElement("button");
    Object.assign(button, {type: "button", value: label, textContent: label, title: meaning});
    button.onclick = () => {
      if (labels[figure.dataset.id] === label) delete labels[figure.dataset.id]; else labels[figure.dataset.id] = label;
      try { localStorage.setItem(key, JSON.stringify(labels)); } catch { /* they can still be saved as a file */ }
      show();
    };
    place.append(button);
  }
}
document.querySelector(".save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(labels, null, 1)], {type: "application/json"}));
  link.download = "labels.json";
  link.click();
};
if (always) {
  body.classList.add("labelling");
  document.querySelector(".reveal").onchange = event => body.classList.toggle("revealed", event.target.checked);
} else {
  const start = document.querySelector(".start");
  start.hidden = false;
  start.onclick = () => {
    const on = body.classList.toggle("labelling");
    start.textContent = on ? "Back to the scores" : "Label by eye";
    if (on) document.getElementById("k-all").checked = true;
    start.scrollIntoView();
  };
}
show();
