import { Component, type ComponentChildren } from "preact";
import { explain } from "../api/errors";
import { texts } from "../texts/en";
import { Button } from "../ui/button";

interface Failed {
  error: unknown;
}

/** Shows an error in place of the page that threw it, so that the rest of the shell stays usable. */
export class Boundary extends Component<{ children: ComponentChildren }, Failed> {
  override state: Failed = { error: null };

  override componentDidCatch(error: unknown): void {
    this.setState({ error });
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return (
      <div class="page">
        <div class="callout bad" role="alert">
          {texts.errors.failed}
          {explain(this.state.error)}
        </div>
        <div>
          <Button onPress={() => this.setState({ error: null })}>{texts.common.retry}</Button>
        </div>
      </div>
    );
  }
}
