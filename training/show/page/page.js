"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const unhide = (element) => element.removeAttribute("hidden");

  // The slider: every position's words were written by Python; here they are only put in place.
  const slide = () => {
    const dial = read("dial-data");
    const slider = document.getElementById("dial");
    const marker = document.getElementById("marker");
    const cells = document.querySelectorAll("[data-row]");
    const shares = document.querySelectorAll("[data-share]");
    const bars = document.querySelectorAll("#live-shares rect");

    const show = (at) => {
      const row = dial.rows[at];
      cells.forEach((cell, i) => {
        cell.textContent = row[i][0];
        if (row[i][1]) cell.append(make("small", row[i][1]));
      });
      let left = 0;
      shares.forEach((cell, k) => {
        cell.textContent = `${row[5][k]}\u202f%`;
        bars[k].setAttribute("x", left);
        bars[k].setAttribute("width", row[5][k]);
        left += Number(row[5][k]);
      });
      const [x, y] = dial.positions[at];
      const drop = marker.querySelector("line");
      drop.setAttribute("y2", dial.bottom - y);
      marker.setAttribute("transform", `translate(${x} ${y})`);
      slider.setAttribute("aria-valuetext", `${row[1][0]} of the top tier’s quality, ${row[2][0]} per 1,000`);
    };
    const reset = () => {
      slider.value = dial.start;
      show(dial.start);
    };
    slider.addEventListener("input", () => show(Number(slider.value)));
    document.getElementById("reset").addEventListener("click", reset);
    document.querySelectorAll(".slider").forEach(unhide);
    unhide(marker);
    reset();
  };
  if (document.getElementById("dial")) slide(); // one-sided logs have no curve to slide along

  // Prompts: built from data by textContent alone, and only when somebody asks to see them.
  const view = document.getElementById("prompt-view");
  const detail = document.getElementById("detail");
  const toggle = document.getElementById("show-prompts");
  let logged = null;

  const cell = (text, good) => make("td", text, good == null ? "" : good ? "good" : "bad");
  const table = (heads) => {
    const made = make("table");
    const row = make("tr");
    heads.forEach((text) => row.append(make("th", text)));
    made.append(make("thead"), make("tbody"));
    made.tHead.append(row);
    return made;
  };

  const open = (button, prompt) => {
    document.querySelectorAll("#lists button").forEach((b) => b.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    const said = make("blockquote", prompt.text);
    said.dir = "auto";
    const tiers = table(["tier", "P(suffices)", "expected, per 1,000", "score"]);
    logged.tiers.forEach((name, k) => {
      const row = make("tr", undefined, k === prompt.tier ? "us" : "");
      const head = make("th");
      head.append(make("bdi", name), k === prompt.tier ? " (chosen)" : "");
      row.append(head, cell(prompt.p[k]), cell(prompt.usd[k]), cell(prompt.score[k], prompt.good[k]));
      tiers.tBodies[0].append(row);
    });
    const near = table(["likeness", "logged prompt", ...logged.tiers]);
    prompt.near.forEach((other) => {
      const row = make("tr");
      const words = make("td", undefined, "text");
      const text = make("div", other.text);
      text.dir = "auto";
      words.append(text);
      row.append(cell(other.near), words, ...other.score.map((score) => cell(score)));
      near.tBodies[0].append(row);
    });
    const about = make("p", undefined, "fine");
    about.append("request ", make("bdi", prompt.id), prompt.source ? ", source " : "", make("bdi", prompt.source));
    const scroll = make("div", undefined, "scroll");
    scroll.append(near);
    detail.replaceChildren(
      said, about, tiers, make("h3", "The nearest logged prompts, and each tier’s score on them"), scroll,
    );
  };

  const build = () => {
    logged = read("prompt-data");
    const lists = document.getElementById("lists");
    logged.lists.forEach((list) => {
      lists.append(make("h3", list.title), make("p", list.words, "fine"));
      const items = make("ol");
      list.rows.forEach((at) => {
        const prompt = logged.prompts[at];
        const button = make("button", undefined, "prompt");
        const words = make("span", prompt.text.slice(0, 160));
        words.dir = "auto";
        button.type = "button";
        button.append(words, make("small", `→ ${logged.tiers[prompt.tier]} · ${prompt.score.join(" / ")}`));
        button.addEventListener("click", () => open(button, prompt));
        const item = make("li");
        item.append(button);
        items.append(item);
      });
      lists.append(items);
    });
    const first = lists.querySelector("button");
    if (first) first.click();
    else lists.append(make("p", "None to show."));
  };

  const switched = () => {
    if (toggle.checked && !logged) build();
    view.hidden = !toggle.checked;
  };
  toggle.addEventListener("change", switched);
  document.querySelectorAll(".switch").forEach(unhide);
  switched(); // a browser may restore the switch when the page is opened again
})();
