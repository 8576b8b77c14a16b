// Sets the theme before anything is drawn. Not a module: modules run too late for that.
(() => {
  let wanted = null;
  try {
    wanted = localStorage.getItem("percipio-theme");
  } catch {
    // storage may be forbidden: the system's theme will do
  }
  if (wanted === "dark" || wanted === "light") document.documentElement.dataset.theme = wanted;
})();
