Feature: Old blocks are asked of a node that has them
  A full node keeps the states of its last blocks, and an archive keeps all. Clients see no difference.

  Background:
    Given a primary full
    And a backup archive
    And the proxy runs
    And 200 blocks are mined
    Then the pool's head is the chain's

  Scenario Outline: Calls for old state go to the archive behind a full node: <program>
    Given full is a <program> that keeps the states of 128 blocks
    When a client asks for the balance at block 1
    Then every balance came, and 1 of these calls reached full
    And full is known to have the states of its last 128 blocks
    When a client asks for the balances at blocks 1 to 60
    Then every balance came, and 1 of these calls reached full

    Examples:
      | program    |
      | geth       |
      | erigon     |
      | nethermind |
      | besu       |
      | reth       |

  Scenario: A receipt that the first node dropped comes from the archive
    Given full is a geth that keeps the receipts of 128 blocks
    When a client asks for the receipts of the transactions in blocks 1 to 40
    Then every receipt came
