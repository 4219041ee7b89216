Feature: A block is given to nodes until one has taken it
  200 and 202 say that the block was broadcast, 400 that it is not worth that. Any other answer, and none, sends the same bytes to another node.

  Background:
    Given a primary consensus node lighthouse
    And a backup consensus node teku

  Scenario: A block that the first node takes
    Given the proxy runs
    When a validator client publishes a block
    Then the client gets HTTP status 200
    And the block has reached lighthouse once, byte for byte
    And the block has not reached teku

  Scenario Outline: A node's <status> is final
    Given the proxy runs
    And lighthouse answers publications with HTTP status <status>
    When a validator client publishes a block
    Then the client gets HTTP status <status>
    And the block has reached lighthouse once, byte for byte
    And the block has not reached teku

    Examples:
      | status |
      | 202    |
      | 400    |

  Scenario Outline: A node that says <status> is followed by another
    Given the proxy runs
    And lighthouse answers publications with HTTP status <status>
    When a validator client publishes a block
    Then the client gets HTTP status 200
    And the block has reached lighthouse once, byte for byte
    And the block has reached teku once, byte for byte

    Examples:
      | status |
      | 415    |
      | 500    |
      | 502    |
      | 503    |
      | 504    |

  Scenario: When every node says 503, so does the proxy, in a node's words
    Given the proxy runs
    And lighthouse answers publications with HTTP status 503
    And teku answers publications with HTTP status 503
    When a validator client publishes a block
    Then the client gets the beacon API's error 503: "by order of the devnet"

  Scenario: A node that is down is passed over
    Given the proxy runs
    When lighthouse goes down
    And a validator client publishes a block
    Then the client gets HTTP status 200
    And the block has not reached lighthouse
    And the block has reached teku once, byte for byte

  Scenario: A block reaches another node when its node loses the answer
    Given the proxy runs
    When lighthouse loses its answers to publications
    And a validator client publishes a block
    Then the client gets HTTP status 200
    And the block has reached lighthouse once or twice, byte for byte
    And the block has reached teku once, byte for byte

  Scenario: A block has an unknown outcome when every node loses the answer
    Given the proxy runs
    When lighthouse loses its answers to publications
    And teku loses its answers to publications
    And a validator client publishes a block
    Then the client gets the beacon API's error 502: "may or may not have taken effect"
