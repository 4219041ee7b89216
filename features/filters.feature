Feature: A filter that a client polls outlives its node
  Over HTTP, wallets and libraries poll filters. The proxy keeps them, so that every block and every log comes once, and logs that went come as removed.

  Scenario Outline: Polls miss nothing and repeat nothing when the primary <fails> and comes back
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And the client polls filters of blocks and logs
    When 2 blocks are mined
    Then the polls tell all blocks and logs since then, each once
    When geth <fails>
    And 3 blocks are mined
    Then calls go to provider
    And the polls tell all blocks and logs since then, each once
    When geth is well again
    And 2 blocks are mined
    Then calls go to geth
    And the polls tell all blocks and logs since then, each once
    And no node was asked for a filter

    @testnet
    Examples: On every network
      | fails                 |
      | goes down             |
      | hangs                 |

    Examples: Of pretend nodes
      | fails                 |
      | answers with HTTP 500 |

  @testnet
  Scenario Outline: Nodes without a WebSocket do as well, for filters of <what>
    Given a primary geth
    And a backup provider
    And the proxy runs
    And the client polls filters of <what>
    When geth goes down
    And 3 blocks are mined
    Then calls go to provider
    And the polls tell all <what> since then, each once

    Examples:
      | what            |
      | blocks          |
      | blocks and logs |

  @testnet
  Scenario: A reorganisation in the switch is told whole
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And the client polls filters of blocks and logs
    When 4 blocks are mined
    Then the polls tell all blocks and logs since then, each once
    When geth goes down
    And the chain is reorganised 2 blocks deep behind the polls
    Then calls go to provider
    And the polls tell all blocks and logs since then, each once

  @testnet
  Scenario: Calls that are spread leave filters whole
    Given a primary geth
    And a primary besu
    And the settings:
      | calls.policy | "spread" |
    And the proxy runs
    And the client polls filters of blocks and logs
    When 5 blocks are mined
    Then the polls tell all blocks and logs since then, each once
    And no node was asked for a filter

  @testnet
  Scenario Outline: A reload keeps filters of <what>
    Given a primary geth
    And the proxy runs
    And the client polls filters of <what>
    When the operator changes the settings and reloads:
      | calls.attempts | 5 |
    And 3 blocks are mined
    Then the polls tell all <what> since then, each once

    Examples:
      | what            |
      | blocks          |
      | blocks and logs |
