// The channels of one source: what each brings, and what the level makes of them.

import { h, keyed, setAttribute, setText } from "../dom.js";
import { level, percent } from "../format.js";
import { bar, table } from "../parts.js";

/** What each channel brings, and the groups of channels that the level is worked out from. */
export function channels() {
  const values = channelValues();
  const { node: list, body } = table("Groups of channels and their part in the level", [
    { label: "Group" },
    { label: "Share" },
    { label: "Coupling" },
    { label: "Core" },
  ]);
  const none = h("p", { class: "lead" }, "No score yet.");
  const note = h("span", { class: "dim" });
  return {
    node: h("div", {}, none, values.node, list),
    note,
    update(source) {
      values.update(source.score?.channels);
      const groups = rowsOf(source.score);
      none.hidden = groups.length > 0;
      list.hidden = !groups.length;
      const pair = source.score?.correlation?.pair;
      setText(note, pair ? `${pair.vision} and ${pair.event} move together (r ${level(pair.r, 2)})` : "");
      keyed(
        body,
        groups,
        (group) => group.name,
        channelRow,
        (row, group) => row.update(group),
      );
    },
  };
}

/** The value a bin of each channel, its bar against the most seen of it here. */
function channelValues() {
  const most = new Map();
  const { node, body } = table("What a bin brings on each channel", [
    { label: "Channel" },
    { label: "A bin", number: true },
    { label: "Of its most here" },
  ]);
  return {
    node,
    update(found) {
      const rows = Object.entries(found ?? {});
      node.hidden = !rows.length;
      for (const [name, value] of rows) most.set(name, Math.max(most.get(name) ?? 0, Math.abs(value)));
      keyed(
        body,
        rows,
        ([name]) => name,
        valueRow,
        (row, [name, value]) => row.update(name, value, most.get(name)),
      );
    },
  };
}

function valueRow() {
  const [name, number, part] = [h("td", { class: "name" }), h("td", { class: "number" }), bar("level")];
  const row = h("tr", {}, name, number, h("td", {}, h("span", { class: "barred" }, part)));
  row.update = (channel, value, most) => {
    setText(name, channel);
    setText(number, String(Number(value.toPrecision(3))));
    part.update(most ? Math.abs(value) / most : 0);
  };
  return row;
}

function rowsOf(score) {
  const found = score?.populations;
  if (!found?.population_id) return [];
  const core = new Set(score.core ?? []);
  return found.population_id.map((name, index) => ({
    name,
    kind: found.specialization?.[index],
    active: found.active_neurons?.[index],
    size: found.size?.[index],
    share: found.share?.[index],
    coupling: found.fitness?.[index],
    isCore: core.has(name),
  }));
}

function channelRow(group) {
  const [share, coupling] = [bar("level"), bar("integration")];
  const shareText = h("b");
  const couplingText = h("b");
  const core = h("td");
  const row = h(
    "tr",
    {},
    h("td", { class: "name", title: group.kind ?? "" }, group.name),
    h("td", {}, h("span", { class: "barred" }, share, shareText)),
    h("td", {}, h("span", { class: "barred" }, coupling, couplingText)),
    core,
  );
  row.update = (now) => {
    share.update(now.share);
    setText(shareText, percent(now.share));
    coupling.update(now.coupling);
    setText(couplingText, level(now.coupling, 2));
    setText(core, now.isCore ? "in" : "out");
    setAttribute(core, "class", now.isCore ? "good" : "dim");
  };
  return row;
}
