// Line charts as SVG. A chart: {title, x, names: [text of x = 0, 1, ...] or null, series: [{name, colour, points: [[x, y]],
// spread: [deviation of each point], dots: [[x, y]], line}]}. One legend for all charts of a block; a click hides a series.

const W = 460, H = 300, LEFT = 58, RIGHT = 12, TOP = 30, BOTTOM = 44

const SVG = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function number(value) {
  return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(+value.toPrecision(4))
}

function ticks(low, high, about) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough), found = []
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step)
  return found
}

function range(values) {
  const low = Math.min(...values), high = Math.max(...values), margin = (high - low || Math.abs(high) || 1) * 0.05
  return [low - margin, high + margin]
}

function draw(chart, hidden) {
  const shown = chart.series.filter(series => !hidden.has(series.name))
  const all = shown.flatMap(s => [...s.points.flatMap(([x, y], i) => [[x, y - (s.spread?.[i] ?? 0)], [x, y + (s.spread?.[i] ?? 0)]]), ...(s.dots ?? [])])
  const svg = element("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": chart.title, class: "chart"})
  svg.append(element("text", {x: LEFT, y: 18, class: "title"}, chart.title))
  if (!all.length) return svg
  const [x0, x1] = chart.names ? [-0.5, chart.names.length - 0.5] : range(all.map(point => point[0]))
  const [y0, y1] = range(all.map(point => point[1]))
  const px = x => LEFT + (x - x0) / (x1 - x0) * (W - LEFT - RIGHT), py = y => H - BOTTOM - (y - y0) / (y1 - y0) * (H - TOP - BOTTOM)
  for (const y of ticks(y0, y1, 5)) {
    svg.append(element("line", {x1: LEFT, x2: W - RIGHT, y1: py(y), y2: py(y), class: "grid"}))
    svg.append(element("text", {x: LEFT - 6, y: py(y) + 4, "text-anchor": "end"}, number(y)))
  }
  for (const x of chart.names ? chart.names.keys() : ticks(x0, x1, 6))
    svg.append(element("text", {x: px(x), y: H - BOTTOM + 16, "text-anchor": "middle"}, chart.names ? chart.names[x] : number(x)))
  svg.append(element("text", {x: (LEFT + W - RIGHT) / 2, y: H - 8, "text-anchor": "middle"}, chart.x))
  for (const series of shown) {
    const group = element("g", {style: `color: ${series.colour}`}), {points, spread, dots} = series
    if (series.line) group.append(element("polyline", {points: points.map(([x, y]) => `${px(x)},${py(y)}`).join(" ")}))
    points.forEach(([x, y], i) => {
      if (spread?.[i]) group.append(element("line", {x1: px(x), x2: px(x), y1: py(y - spread[i]), y2: py(y + spread[i]), class: "spread"}))
      if (points.length <= 40) group.append(element("circle", {cx: px(x), cy: py(y), r: 3}))
    })
    for (const [x, y] of dots ?? []) group.append(element("circle", {cx: px(x), cy: py(y), r: 2, class: "dot"}))
    svg.append(group)
  }
  const line = element("line", {y1: TOP, y2: H - BOTTOM, class: "cursor", visibility: "hidden"})
  svg.append(line)
  svg.onpointermove = event => point(event, svg, chart, shown, line, px, x0, x1)
  svg.onpointerleave = () => { line.setAttribute("visibility", "hidden"); tip().hidden = true }
  return svg
}

function tip() {
  return document.getElementById("tip")
}

// Show the values of every series at the place that is nearest to the pointer.
function point(event, svg, chart, shown, line, px, x0, x1) {
  const box = svg.getBoundingClientRect(), at = x0 + ((event.clientX - box.left) / box.width * W - LEFT) / (W - LEFT - RIGHT) * (x1 - x0)
  const nearest = series => series.points.reduce((best, one) => Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best)
  const found = shown.filter(series => series.points.length).map(series => [series, nearest(series)])
  if (!found.length) return
  const x = found.map(([, one]) => one[0]).reduce((best, one) => Math.abs(one - at) < Math.abs(best - at) ? one : best)
  line.setAttribute("x1", px(x)); line.setAttribute("x2", px(x)); line.setAttribute("visibility", "visible")
  const lines = found.sort((a, b) => b[1][1] - a[1][1]).slice(0, 20).map(([series, [own, y]]) => {
    const entry = document.createElement("div"), mark = document.createElement("b")
    mark.style.color = series.colour; mark.textContent = "● "
    entry.append(mark, `${number(y)}  ${series.name}` + (own === x || chart.names ? "" : ` (at ${number(own)})`))
    return entry
  })
  const head = document.createElement("div")
  head.textContent = `${chart.x} ${chart.names ? chart.names[x] : number(x)}`
  tip().replaceChildren(head, ...lines)
  tip().hidden = false
  tip().style.left = Math.min(event.clientX + 14, innerWidth - tip().offsetWidth - 8) + "px"
  tip().style.top = Math.min(event.clientY + 14, innerHeight - tip().offsetHeight - 8) + "px"
}

// Fill a block, an element with data-charts, with its charts and their legend. hidden: names of series, kept by the caller.
function charts(block, hidden) {
  const all = JSON.parse(block.querySelector("script").textContent), legend = document.createElement("div")
  const names = new Map(all.flatMap(chart => chart.series.map(series => [series.name, series.colour])))
  const redraw = () => {
    block.querySelectorAll("svg").forEach(old => old.remove())
    legend.before(...all.map(chart => draw(chart, hidden)))
    for (const entry of legend.children) entry.classList.toggle("off", hidden.has(entry.dataset.name))
  }
  legend.className = "legend"
  if (names.size > 1) for (const [name, colour] of names) {
    const entry = document.createElement("button")
    entry.dataset.name = entry.textContent = name
    entry.style.setProperty("--colour", colour)
    entry.onclick = () => { hidden.delete(name) || hidden.add(name); redraw() }
    legend.append(entry)
  }
  block.append(legend)
  redraw()
}
