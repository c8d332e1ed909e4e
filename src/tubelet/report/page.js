// What moves on the page: charts, tables that sort, films with a slider, and, where it is served, following the runs.

const kept = {hidden: {}, frame: {}, sorted: {}}  // what the reader has chosen, by block: a new version of the page keeps it

function sortable(table, name) {
  const heads = [...table.querySelectorAll("th")]
  const sort = ({column, down}) => {
    const rows = [...table.querySelectorAll("tr")].slice(1)
    const text = row => row.cells[column].textContent, value = row => text(row) === "" ? NaN : +text(row)
    rows.sort((a, b) => (isNaN(value(a)) - isNaN(value(b)) || value(a) - value(b) || text(a).localeCompare(text(b))) * (down ? -1 : 1))
    for (const row of rows) row.parentNode.append(row)
  }
  heads.forEach((head, column) => head.onclick = () => {
    const before = kept.sorted[name]
    sort(kept.sorted[name] = {column, down: before?.column === column && !before.down})
  })
  if (kept.sorted[name]) sort(kept.sorted[name])
}

function films(block, name) {
  const all = JSON.parse(block.querySelector("script").textContent), pictures = [...block.querySelectorAll("img[data-film]")]
  const slider = block.querySelector("input"), play = block.querySelector("button"), last = Math.max(...all.map(film => film.length)) - 1
  const show = frame => {
    kept.frame[name] = slider.value = frame
    for (const picture of pictures) {
      const film = all[picture.dataset.film]
      picture.src = film[Math.min(frame, film.length - 1)]
    }
    block.querySelector("output").textContent = `frame ${+frame + 1} of ${last + 1}`
  }
  let timer = null
  slider.max = last
  slider.oninput = () => show(slider.value)
  play.onclick = () => {
    clearInterval(timer)
    timer = timer === null ? setInterval(() => block.isConnected ? show((+slider.value + 1) % (last + 1)) : clearInterval(timer), 200) : null
    play.textContent = timer === null ? "play" : "stop"
  }
  show(Math.min(kept.frame[name] ?? 0, last))
}

function start() {
  document.querySelectorAll("table").forEach((table, i) => sortable(table, i))
  document.querySelectorAll("[data-charts]").forEach((block, i) => charts(block, kept.hidden[i] ??= new Set()))
  document.querySelectorAll("[data-films]").forEach((block, i) => films(block, i))
}

async function follow(seconds) {
  let before = null
  for (;;) {
    await new Promise(resolve => setTimeout(resolve, 1000 * seconds))
    const state = document.getElementById("following")
    try {
      const answer = await fetch("page"), text = await answer.text()
      if (!answer.ok) {
        state.textContent = answer.status === 503 ? text : "the server has stopped"
        continue
      }
      state.textContent = `following, ${new Date().toLocaleTimeString()}`
      if (text === before) continue
      before = text
      const open = [...document.querySelectorAll("details[open] summary")].map(summary => summary.textContent)
      document.querySelector("main").innerHTML = text
      for (const summary of document.querySelectorAll("summary")) summary.parentNode.open = open.includes(summary.textContent)
      tip().hidden = true
      start()
    } catch (error) {
      state.textContent = "the server has stopped"
    }
  }
}

start()
if (document.body.dataset.follow) follow(+document.body.dataset.follow)
