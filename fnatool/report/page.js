"use strict";
const told = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function coloured(figure) {
  const data = figure.data.map((trace) => {
    const colour = told(trace.meta) || told("other");
    const made = { ...trace };
    for (const part of ["line", "marker"]) if (trace[part]) made[part] = { ...trace[part], color: colour };
    return made;
  });
  const axis = { gridcolor: told("line"), zerolinecolor: told("line"), linecolor: told("line"), automargin: true };
  const layout = { ...figure.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  layout.font = { family: getComputedStyle(document.body).fontFamily, color: told("ink"), size: 13 };
  layout.hoverlabel = { align: "left", bgcolor: told("panel"), bordercolor: told("line"), font: { color: told("ink") } };
  for (const name of ["xaxis", "yaxis", "yaxis2"]) if (layout[name]) layout[name] = { ...axis, ...layout[name] };
  return [data, layout, { responsive: true, displaylogo: false, displayModeBar: false }];
}

function choose(event) {
  const command = event.points[0].customdata;
  if (!command) return;
  document.getElementById("command").textContent = command;
  if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(command).catch(() => {});
}

function draw() {
  for (const place of document.querySelectorAll(".curve")) {
    const figure = JSON.parse(place.nextElementSibling.textContent);
    Plotly.react(place, ...coloured(figure)).then(() => {
      if (!place.dataset.heard) place.on("plotly_click", choose);
      place.dataset.heard = "yes";
    });
  }
}

if (window.Plotly) {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
