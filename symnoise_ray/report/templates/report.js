(() => {
  "use strict";

  const ROWS = Number(document.body.dataset.rowsAtOnce);
  const ANSWERS = 10;
  const DASH = "\u2013";
  const BESIDE = { won: "won", lost: "lost", tie: "a tie", none: "no valid verdict" };
  const ERRORS = 1; // Vega also warns of a figure in which a filter leaves nothing.
  const DRAWING = {
    background: null,
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: { labelLimit: 170, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 },
    axisX: { tickCount: { signal: "ceil(width / 90)" } },
    legend: { labelFontSize: 12 },
  };

  const make = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const data = (root, selector) => {
    const found = root.querySelector(selector);
    return found ? JSON.parse(found.textContent) : null;
  };
  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    const count = names.length ? columns[names[0]].length : 0;
    return Array.from({ length: count }, (_, n) =>
      Object.fromEntries(names.map((name) => [name, columns[name][n]])));
  };

  // What stands under a list of which a part is shown; nothing where all is.
  const pager = (place, start, size, total, go) => {
    place.replaceChildren();
    if (total <= size) return;
    const step = (text, to) => {
      const button = make("button", text);
      button.type = "button";
      button.disabled = to < 0 || to >= total;
      button.addEventListener("click", () => go(to));
      return button;
    };
    const end = Math.min(start + size, total);
    const told = `${(start + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ` +
      total.toLocaleString("en");
    place.append(step("previous", start - size), make("span", told), step("next", start + size));
  };

  // A cell as it is compared: a number (durations in seconds), a text, or null where nothing is.
  const keyOf = (text, isNumber) => {
    const shown = text.trim();
    if (shown === "" || shown === DASH) return null;
    if (!isNumber) return shown;
    const time = shown.match(/^(?:(\d+) h )?(\d+) min(?: (\d+) s)?$/);
    if (time) return 3600 * (time[1] || 0) + 60 * time[2] + Number(time[3] || 0);
    const number = parseFloat(shown.replaceAll(",", ""));
    return Number.isNaN(number) ? shown : number;
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true });

  class Table {
    constructor(table, sweep) {
      this.sweep = sweep;
      this.body = table.tBodies[0];
      this.heads = [...table.tHead.rows[0].cells];
      this.place = table.parentElement.nextElementSibling;
      this.rows = this.read(table);
      this.start = 0;
      this.column = null;
      this.down = false;
      this.heads.forEach((head, column) =>
        head.querySelector("button").addEventListener("click", () => this.sort(column)));
    }

    read(table) {
      const rows = [...this.body.rows].map((row) => ({
        cells: [...row.cells].map((cell) => cell.querySelector("bdi").textContent),
        arm: row.dataset.arm,
        trial: row.dataset.trial,
      }));
      const rest = data(table.parentElement, "script.rest");
      if (!rest) return rows;
      return rows.concat(rest.rows.map((cells, n) =>
        ({ cells, arm: rest.arms[n], trial: rest.trials[n] })));
    }

    // Ascending, descending, and back to the order of the report.
    sort(column) {
      if (this.column !== column) [this.column, this.down] = [column, false];
      else if (!this.down) this.down = true;
      else this.column = null;
      this.heads.forEach((head, n) => {
        if (n === this.column) head.ariaSort = this.down ? "descending" : "ascending";
        else head.removeAttribute("aria-sort");
      });
      this.start = 0;
      this.show();
    }

    kept() {
      const rows = this.rows.filter((row) => this.sweep.keeps(row.arm, row.trial));
      if (this.column === null) return rows;
      const isNumber = this.heads[this.column].classList.contains("r");
      const keyed = rows.map((row) => [keyOf(row.cells[this.column], isNumber), row]);
      keyed.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        return this.down ? compare(other, one) : compare(one, other);
      });
      return keyed.map(([, row]) => row);
    }

    show() {
      const rows = this.kept();
      if (this.start >= rows.length) this.start = 0;
      const page = rows.slice(this.start, this.start + ROWS);
      this.body.replaceChildren(...page.map((row) => this.draw(row)));
      pager(this.place, this.start, ROWS, rows.length, (to) => {
        this.start = to;
        this.show();
      });
    }

    draw(row) {
      const made = make("tr");
      if (row.arm !== undefined) made.dataset.arm = row.arm;
      if (row.trial !== undefined) made.dataset.trial = row.trial;
      row.cells.forEach((text, column) => {
        const cell = make("td", undefined, this.heads[column].className);
        const mark = column === 0 && this.sweep.marks.get(row.arm);
        if (mark) cell.append(mark.cloneNode());
        cell.append(make("bdi", text));
        made.append(cell);
      });
      return made;
    }
  }

  class Answers {
    constructor(section) {
      const { texts, entries } = data(section, ".answers-data");
      this.texts = texts;
      this.lower = texts.map((text) => text.toLowerCase());
      this.entries = entries.map(
        ([instruction, gold, reference, answer, outcome, arm, topic, seed, trial, opponent]) =>
          ({ instruction, gold, reference, answer, outcome, arm, topic, seed, trial, opponent }));
      this.form = section.querySelector("form");
      this.list = section.querySelector(".list");
      this.count = section.querySelector(".count");
      this.place = section.querySelector(".pager");
      this.start = 0;
      for (const name of ["arm", "topic", "seed"]) this.offer(name);
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.form.addEventListener("input", () => {
        this.start = 0;
        this.show();
      });
      this.show();
    }

    offer(name) {
      const values = [...new Set(this.entries.map((entry) => String(entry[name])))].sort();
      const field = this.form.elements[name];
      for (const value of values) field.append(new Option(value || "none", value));
      field.parentElement.hidden = values.length < 2;
    }

    kept() {
      const words = this.form.elements.words.value.trim().toLowerCase();
      const hits = words && this.lower.map((text) => text.includes(words));
      const wanted = ["outcome", "arm", "topic", "seed"]
        .map((name) => [name, this.form.elements[name].value])
        .filter(([, value]) => value !== "");
      return this.entries.filter((entry) =>
        wanted.every(([name, value]) => String(entry[name]) === value) &&
        (!words || ["instruction", "gold", "reference", "answer"].some((n) => hits[entry[n]])));
    }

    show() {
      const kept = this.kept();
      const told = (n) => n.toLocaleString("en");
      this.count.textContent = `${told(kept.length)} of ${told(this.entries.length)} answers`;
      const page = kept.slice(this.start, this.start + ANSWERS);
      this.list.replaceChildren(...page.map((entry) => this.draw(entry)));
      pager(this.place, this.start, ANSWERS, kept.length, (to) => {
        this.start = to;
        this.show();
      });
    }

    draw(entry) {
      const made = document.querySelector("#answer").content.cloneNode(true);
      const seed = `seed ${entry.seed}`;
      made.querySelector(".of").textContent =
        [entry.topic, seed, BESIDE[entry.outcome]].filter(Boolean).join(" \u00b7 ");
      made.querySelector("h3").textContent = this.texts[entry.instruction];
      made.querySelector(".gold span").textContent = this.texts[entry.gold] || DASH;
      const sides = { reference: ["lost", entry.opponent], trial: ["won", entry.trial] };
      for (const [side, [outcome, name]] of Object.entries(sides)) {
        const place = made.querySelector(`.${side}`);
        const won = entry.outcome === outcome;
        const text = this.texts[side === "trial" ? entry.answer : entry.reference];
        place.classList.toggle("won", won);
        place.querySelector("h4").textContent = won ? `${name}: wins` : name;
        place.querySelector("p").textContent = text.trim() ? text : "no text";
        place.querySelector("p").classList.toggle("empty", !text.trim());
      }
      return made;
    }
  }

  class Sweep {
    constructor(root) {
      this.root = root;
      this.columns = data(root, "script.columns");
      this.trials = rowsOf(this.columns.trials);
      this.hidden = new Set();
      this.brushed = null;
      this.written = null;
      this.chosen = false;
      this.views = [];
      this.brushing = null;
      this.buttons = [...root.querySelectorAll("button.arm")];
      this.marks = new Map(this.buttons.map((button) =>
        [button.dataset.arm, button.querySelector(".mark")]));
      this.tables = [...root.querySelectorAll("table.sorted")].map((each) => new Table(each, this));
      this.tables.filter((table) => table.rows.length > ROWS).forEach((table) => table.show());
      const answers = root.querySelector("section.answers");
      if (answers) new Answers(answers);
      if (this.buttons.length) this.listen();
    }

    listen() {
      for (const button of this.buttons) {
        button.addEventListener("click", () => {
          const arm = button.dataset.arm;
          if (!this.hidden.delete(arm)) this.hidden.add(arm);
          this.update();
        });
      }
      this.field = this.root.querySelector(".choose");
      this.field.addEventListener("input", () => {
        this.written = this.matching(this.field.value.trim().toLowerCase());
        this.update();
      });
      this.all = this.root.querySelector(".all");
      this.all.addEventListener("click", () => {
        this.hidden.clear();
        this.brushed = this.written = null;
        this.field.value = "";
        this.brushing = null;
        this.clearBrushes(null);
        this.update();
      });
    }

    matching(words) {
      if (!words) return null;
      return new Set(this.trials
        .filter((t) => `${t.trial} ${t.setting}`.toLowerCase().includes(words))
        .map((t) => t.trial));
    }

    keeps(arm, trial) {
      if (arm !== undefined && this.hidden.has(arm)) return false;
      return trial === undefined || !this.chosen || Boolean(this.chosen[trial]);
    }

    update() {
      const sets = [this.brushed, this.written].filter(Boolean);
      const names = this.trials.map((t) => t.trial).filter((n) => sets.every((s) => s.has(n)));
      this.chosen = sets.length ? Object.fromEntries(names.map((name) => [name, true])) : false;
      const shown = this.buttons.map((b) => b.dataset.arm).filter((arm) => !this.hidden.has(arm));
      const arms = this.hidden.size && Object.fromEntries(shown.map((arm) => [arm, true]));
      for (const button of this.buttons) {
        button.setAttribute("aria-pressed", String(!this.hidden.has(button.dataset.arm)));
      }
      const free = !this.hidden.size && !sets.length;
      const count = this.trials.filter((t) => this.keeps(t.arm, t.trial)).length;
      this.all.disabled = free;
      this.root.querySelector(".told").textContent = free
        ? "" : `${count.toLocaleString("en")} of ${this.trials.length.toLocaleString("en")} trials`;
      this.tables.forEach((table) => table.show());
      for (const { view } of this.views) {
        view.signal("shown_arms", arms || false).signal("chosen", this.chosen).runAsync();
      }
    }

    // What lies in a brush; a figure of medians draws no trial, so the trials are looked up.
    brush(own, ranges) {
      const entries = Object.entries(ranges || {}).filter(([name]) => own.brush[name]);
      if (!entries.length && this.brushing !== own) return;
      this.brushing = entries.length ? own : null;
      this.clearBrushes(this.brushing);
      const inside = (trial) => entries.every(([name, range]) => {
        const value = trial[own.brush[name]];
        if (typeof value === "string") return range.includes(value);
        const [low, high] = [Math.min(...range), Math.max(...range)];
        return value !== null && value >= low && value <= high;
      });
      this.brushed = entries.length
        ? new Set(this.trials.filter(inside).map((trial) => trial.trial)) : null;
      this.update();
    }

    clearBrushes(but) {
      for (const own of this.views) {
        if (own === but || !Object.keys(own.brush).length) continue;
        for (const axis of ["brush_x", "brush_y"]) {
          if (axis in own.view.getState().signals) own.view.signal(axis, [0, 0]);
        }
        own.view.runAsync();
      }
    }

    async draw() {
      for (const figure of this.root.querySelectorAll("figure")) {
        const { chart, sources, brush } = data(figure, ".chart-data");
        const rows = sources.map((name) => [name, rowsOf(this.columns[name])]);
        const spec = { ...chart, datasets: { ...chart.datasets, ...Object.fromEntries(rows) } };
        const options =
          { actions: false, renderer: "svg", ast: true, config: DRAWING, logLevel: ERRORS };
        const { view } = await vegaEmbed(figure.querySelector(".chart"), spec, options);
        const own = { view, brush };
        this.views.push(own);
        if (Object.keys(brush).length) {
          let waiting = 0;
          view.addSignalListener("brush", (_, ranges) => {
            cancelAnimationFrame(waiting);
            waiting = requestAnimationFrame(() => this.brush(own, ranges));
          });
        }
      }
    }
  }

  // What is folded away is printed too.
  const unfold = () => {
    const folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
    window.addEventListener("afterprint", () => {
      for (const each of folded) each.open = false;
    }, { once: true });
  };

  const open = async () => {
    const sweeps = [...document.querySelectorAll("article.sweep")].map((root) => new Sweep(root));
    for (const sweep of sweeps) await sweep.draw();
    window.sweeps = sweeps;
    document.documentElement.dataset.drawn = "all";
  };
  window.addEventListener("beforeprint", unfold);
  open();
})();
